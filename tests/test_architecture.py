"""The page of the architecture names files and definitions, and each of them exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_PAGE = _ROOT / "docs" / "architecture.md"
_PACKAGES = {path.parent.name for path in (_ROOT / "mpr").glob("*/__init__.py")}

_FILE = re.compile(r"`((?:mpr|tests)/[\w/]+\.py)`")
# A file, a colon, and the names that are defined in it: `mpr/rrd/writer.py`: `FileWriter.accept`, `FileWriter.close`.
_DEFINED = re.compile(r"`(mpr/[\w/]+\.py)`:((?:,?\s+`[A-Za-z_][\w.]*`)+)")
_NAME = re.compile(r"`([\w.]+)`")


def _ways(page: str) -> dict[str, set[tuple[str, str]]]:
    """Return the names on each way, by the heading of its section: (file, name)."""
    found = {}
    for section in page.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        found[heading] = {(file, name) for file, names in _DEFINED.findall(text) for name in _NAME.findall(names)}
    return {heading: names for heading, names in found.items() if names}


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """Yield the names that a module or a class defines, with those of its classes: `Class`, `Class.method`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def _is_defined(file: str, name: str) -> bool:
    path = _ROOT / file
    return path.exists() and name in set(_definitions(ast.parse(path.read_text())))


def test_every_file_on_the_page_exists() -> None:
    files = set(_FILE.findall(_PAGE.read_text()))
    assert len(files) > 30
    assert [] == sorted(file for file in files if not (_ROOT / file).exists())


@pytest.mark.parametrize("way", _ways(_PAGE.read_text()))
def test_every_name_on_a_way_is_defined_in_its_file(way: str) -> None:
    names = _ways(_PAGE.read_text())[way]
    assert [] == sorted(f"{file}: {name}" for file, name in names if not _is_defined(file, name))


def test_the_page_has_the_five_ways() -> None:
    sizes = {way: len(names) for way, names in _ways(_PAGE.read_text()).items()}
    assert list(sizes) == [
        "The way of a row",
        "The way of a task and its result",
        "The way to a viewer",
        "A worker dies",
        "An engine runs a task again",
    ]
    assert min(sizes.values()) >= 5


def test_the_table_has_every_package() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| `mpr/(\w+)/", _PAGE.read_text(), re.MULTILINE)
    assert all(package == folder for package, folder in rows)
    assert {package for package, _ in rows} == _PACKAGES


def test_a_name_that_is_not_there_is_found() -> None:
    missing = "mpr/errors/none.py"
    way = f"\n## Way\n`mpr/errors.py`: `SinkError`, `No.such`, and `{missing}`:\n`Missing`. Then `text`\n"
    names = _ways(way)["Way"]
    assert names == {("mpr/errors.py", "SinkError"), ("mpr/errors.py", "No.such"), (missing, "Missing")}
    assert [name for file, name in sorted(names) if _is_defined(file, name)] == ["SinkError"]
