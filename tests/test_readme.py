"""The snippets of the README and of docs/ run, and print what the pages show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import snippets, support

ALL = snippets.all_snippets()
_ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("snippet", ALL, ids=[snippet.place for snippet in ALL])
def test_a_snippet_runs_and_prints_what_is_shown(snippet: snippets.Snippet, tmp_path: Path) -> None:
    if missing := snippet.missing():
        pytest.skip(f"needs {', '.join(missing)}")
    ran = snippet.run(tmp_path)
    assert (ran.returncode, ran.stderr or "") == (0, ""), ran.stdout
    if snippet.output is not None:
        assert snippet.prints(ran.stdout), ran.stdout
    files = sorted(tmp_path.rglob("*.rrd"))
    assert files or snippet.output is not None, "a snippet that shows nothing"
    for file in files:
        support.check_file(file)


def test_the_readme_has_snippets() -> None:
    assert sum(snippet.place.startswith("README.md:") for snippet in ALL) == 4


_PAGE = """
```python title="work.py"
print("work")
```

```sh
python work.py
```

```text
w...k
```

<!-- not run: it would never end -->
```python
while True: ...
```

<!-- needs: sys, no_such_package -->
```python
import work
```
"""


def test_titles_outputs_and_comments_of_a_page_apply_to_its_snippets(tmp_path: Path) -> None:
    shell, needy = snippets.snippets_of(_PAGE, "page.md")
    assert (shell.place, needy.place) == ("page.md:6", "page.md:20")
    assert shell.prints(shell.run(tmp_path).stdout)
    assert not shell.prints("work\nand more\n")
    assert needy.missing() == ["no_such_package"]
    with pytest.raises(ValueError, match=r"page.md: nothing on the page runs or imports other.py"):
        list(snippets.snippets_of(_PAGE.replace("work.py", "other.py", 1), "page.md"))


def test_the_tests_that_the_page_of_sinks_names_exist() -> None:
    page = (_ROOT / "docs" / "sinks.md").read_text()
    where = "tests/test_live.py"
    named = []
    for section in page.split("\n## "):
        here = "tests/test_direct.py" if section.startswith("`route") else where
        named += [(file or here, test) for file, test in re.findall(r"(?:`(tests/\w+\.py)`:\s)?`(test_\w+)`", section)]
    assert len(named) > 30
    assert [] == [each for each in named if f"def {each[1]}(" not in (_ROOT / each[0]).read_text()]


def test_the_quickstart_runs_and_verifies_its_file(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the examples' extra is not installed")
    path = tmp_path / "quickstart.rrd"
    quickstart = Path(__file__).parent.parent / "examples" / "quickstart.py"
    ran = subprocess.run([sys.executable, quickstart, path], capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"{path}: verified" in ran.stdout
    support.check_file(path)
    entities = {entity for entity, _ in support.row_counts(path, "picture_nr")}
    layers = ("", "/segments", "/boxes", "/contours")
    assert {f"/picture{layer}" for layer in layers} | {
        "/stats/edge_share",
        "/stats/segments",
        "/stats/seconds",
    } == entities
    assert all(count == 1 for count in support.row_counts(path, "picture_nr").values())
