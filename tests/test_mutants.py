"""The list of changes in `mutants.toml` fits the code, so that `make mutants` tries what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests import mutants

_ALL = mutants.mutants()


def test_each_old_text_is_in_its_file_once_and_the_change_is_python() -> None:
    wrong = []
    for each in _ALL:
        text = (mutants.ROOT / each.file).read_text()
        try:
            changed = each.changed(text)
            compile(changed, each.file, "exec")
        except (ValueError, SyntaxError) as error:
            wrong.append(str(error))
        else:
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), each.name
    assert wrong == []


def test_each_named_test_exists() -> None:
    missing = []
    for name in sorted({test for each in _ALL for test in each.tests}):
        path, _, function = name.partition("::")
        function = function.partition("[")[0]
        place = Path(mutants.ROOT, path)
        if not place.exists() or (function and f"def {function}(" not in place.read_text()):
            missing.append(name)
    assert missing == []


def test_the_list_has_the_hard_modules() -> None:
    files = {each.file for each in _ALL}
    for module in ("row_account", "row_balance", "guard", "shared_file", "task_mark", "farewell", "result_journal"):
        assert any(file.endswith(f"/{module}.py") for file in files), module
    assert len(_ALL) >= 150


def test_a_text_that_is_not_there_or_twice_is_an_error() -> None:
    mutant = mutants.Mutant(number=1, file="x.py", old="a", new="b", why="", tests=())
    assert mutant.changed("xay") == "xby"
    for text in ("xy", "aa"):
        with pytest.raises(ValueError, match="found"):
            mutant.changed(text)
