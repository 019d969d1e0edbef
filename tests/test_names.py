"""Names in strings, comments and pages, which no type checker sees, all lead to something that exists."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import mpr

_ROOT = Path(mpr.__file__).parent.parent
_MODULES = sorted((_ROOT / "mpr").rglob("*.py"))
_SOURCES = [*_MODULES, *sorted((_ROOT / "tests").rglob("*.py")), *sorted((_ROOT / "benchmarks").rglob("*.py"))]
_PAGES = [_ROOT / "README.md", _ROOT / "CHANGELOG.md", *sorted((_ROOT / "docs").glob("*.md"))]

# `module:function`, `module.name`, or a module.
_DOTTED = re.compile(r"mpr(\.[a-z_]\w*)+(\.[A-Za-z_]\w*|:[a-z_]\w*)?")
_IMPORT = re.compile(r"\bfrom (mpr(?:\.\w+)*) import (\w+(?:, \w+)*)|\bimport (mpr(?:\.\w+)+)")
_MENTION = re.compile(r"`([\w./-]+\.(?:py|html))`")
# Names of loggers.
_OTHER = {"mpr.own"}


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _named(path: Path) -> set[str]:
    """Return the modules and members that strings of a file name, as `pkgutil.resolve_name` takes them."""
    found: set[str] = set()
    for text in _strings(path):
        if _DOTTED.fullmatch(text) and text not in _OTHER:
            found.add(text)
        for module, members, imported in _IMPORT.findall(text):
            found |= {f"{module}:{each}" for each in members.split(", ")} if module else {imported}
    return found


def _leads_somewhere(name: str) -> bool:
    """Return whether the module exists, or the name at the top of its module, without an import."""
    path = _ROOT.joinpath(*re.split(r"[.:]", name))
    if path.with_suffix(".py").exists() or (path / "__init__.py").exists():
        return True
    home = path.parent.with_suffix(".py") if path.parent.with_suffix(".py").exists() else path.parent / "__init__.py"
    if not home.exists():
        return False
    tree = ast.parse(home.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return path.name in names


def test_the_search_finds_the_names() -> None:
    assert "mpr.worker.main:main" in _named(_ROOT / "mpr/worker/config.py")
    assert {"mpr.worker.main", "mpr.worker.preload"} <= _named(_ROOT / "mpr/processes/start.py")
    assert "mpr.run:startup" in _named(_ROOT / "mpr/run/command.py")
    assert "mpr.sdk:reader" in _named(_ROOT / "mpr/sdk/programs.py")
    assert "mpr.picture.process" in _named(_ROOT / "mpr/picture/rendering.py")


def test_a_name_within_a_string_leads_somewhere() -> None:
    named = {(path.name, name) for path in _SOURCES if path != Path(__file__) for name in _named(path)}
    assert set() == {(file, name) for file, name in named if not _leads_somewhere(name)}


def _missing(path: Path) -> list[str]:
    """Return the files that the file at `path` mentions and that do not exist."""
    folders = [path.parent, _ROOT, _ROOT / "examples"]
    if path.is_relative_to(_ROOT / "mpr"):
        folders = [*(each for each in path.parents if each.is_relative_to(_ROOT / "mpr")), _ROOT]
    mentioned = set(_MENTION.findall(path.read_text())) - _OF_OTHERS
    return sorted(name for name in mentioned if not any((folder / name).exists() for folder in folders))


def test_a_file_that_is_mentioned_exists() -> None:
    found = {path.name: _missing(path) for path in [*_SOURCES, *_PAGES]}
    assert {} == {name: missing for name, missing in found.items() if missing}


# Files of users, of the SDK, and files that the plugin writes.
_OF_OTHERS = {
    "index.html",
    "conftest.py",
    "sitecustomize.py",
    "__main__.py",
    "crates/store/re_log_encoding/src/rrd/frames.rs",
}


def test_the_entry_points_lead_somewhere() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    for name in (*project["scripts"].values(), *project["entry-points"]["pytest11"].values()):
        assert _leads_somewhere(name), name
