import pytest

IDS = [
    "a/b", "a:b", "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a\\b", "a b", "a\nb", "a\0b", "..", "../..", "-rf", "ä", "日本",
    "Ω" * 200, "x" * 400, "1", "1 ", "A", "a", "@group", "x@group", "[", "]", "$HOME", "`ls`", "é", "e\u0301",
]  # fmt: skip


@pytest.mark.parametrize("value", IDS, ids=IDS)
def test_name(value):
    pass


@pytest.mark.parametrize("value", [""])
def test_empty(value):
    pass
