"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support

README = Path(__file__).parent.parent / "README.md"
_BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<output>.*?)```)?", re.DOTALL)
BLOCKS = list(_BLOCK.finditer(README.read_text()))


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block-{number}" for number in range(len(BLOCKS))])
def test_a_snippet_of_the_readme_runs_and_prints_what_is_shown(block: re.Match[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block["code"])
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    if block["output"] is not None:
        assert ran.stdout == block["output"]
    files = sorted(tmp_path.glob("*.rrd"))
    assert files
    for file in files:
        support.check_file(file)


def test_the_readme_has_snippets() -> None:
    assert len(BLOCKS) == 4


def test_the_tests_that_the_page_of_sinks_names_exist() -> None:
    page = (README.parent / "docs" / "sinks.md").read_text()
    where = "tests/test_live.py"
    named = []
    for section in page.split("\n## "):
        here = "tests/test_direct.py" if section.startswith("`route") else where
        named += [(file or here, test) for file, test in re.findall(r"(?:`(tests/\w+\.py)`:\s)?`(test_\w+)`", section)]
    assert len(named) > 30
    assert [] == [each for each in named if f"def {each[1]}(" not in (README.parent / each[0]).read_text()]


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
