"""Each package of mpr imports only packages that the table allows, also inside functions.

The table of packages is ordered from the ground up: a package imports only from packages above its own row.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpr

_FOLDER = Path(mpr.__file__).parent

# The modules of the floor import only each other, and any module may import them.
FLOOR = {"errors", "failpoints", "files", "limits", "threads", "user_code"}
TABLE = {
    "sdk": "",
    "transport": "",
    "processes": "transport",
    "rrd": "sdk",
    "datasets": "transport rrd",
    "compare": "sdk rrd",
    "picture": "sdk rrd",
    "producer": "sdk transport rrd",
    "sinks": "sdk rrd datasets",
    "tasks": "sdk transport processes producer",
    "live": "sdk transport processes rrd sinks",
    "aggregator": "transport rrd sinks",
    "worker": "sdk transport processes producer tasks",
    "scheduler": "transport processes rrd aggregator",
    "engines": "transport processes producer tasks scheduler",
    "blueprint": "sdk rrd",
    "telemetry": "sdk transport scheduler blueprint",
    "recording": "sdk transport processes rrd datasets producer sinks tasks live aggregator blueprint",
    "pool": "transport processes rrd worker scheduler engines telemetry recording",
    "run": "rrd producer sinks tasks live recording",
}
# The edges may import any package, and no other package imports them.
_EDGES = {"__main__", "cli", "mpr", "pytest_plugin"}


def _name(path: Path) -> str:
    """Return the name of a module within mpr; a package has the name of its folder."""
    parts = path.relative_to(_FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "mpr"


_SOURCES = {_name(path): path.read_text() for path in sorted(_FOLDER.rglob("*.py"))}
_TREES = {name: ast.parse(source) for name, source in _SOURCES.items()}


def _package(name: str) -> str:
    return name.partition(".")[0]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those for type checkers only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _is_type_checking(child):
            yield from _nodes(child)


def _imported(name: str, nodes: Iterator[ast.AST]) -> set[str]:
    """Return the full names of the modules that a module imports; for `from mpr import rrd` that is `mpr.rrd`."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0, "imports within mpr are absolute"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {each for each in members if each.removeprefix("mpr.") in _SOURCES and each.startswith("mpr.")}
            found |= modules
            if members - modules:
                found.add(node.module)
    return found


def _inside(name: str, *, types_too: bool = False) -> set[str]:
    """Return the modules of mpr that a module imports; with `types_too` also those that only type checkers import."""
    nodes = ast.walk(_TREES[name]) if types_too else _nodes(_TREES[name])
    return {each.removeprefix("mpr.") for each in _imported(name, nodes) if each.startswith("mpr.")}


def _outside(name: str) -> set[str]:
    """Return the packages outside of mpr that a module imports."""
    return {each.partition(".")[0] for each in _imported(name, _nodes(_TREES[name]))}


def test_every_import_is_found() -> None:
    # Imports at the top, within functions only, and for type checkers only.
    assert "rrd.framing" in _inside("rrd.manifest")
    assert "pyarrow" in _outside("rrd.manifest")
    assert "rrd.append" in _inside("pytest_plugin.report.repair")
    assert "producer.row_account" in _inside("producer.routed", types_too=True) - _inside("producer.routed")


@pytest.mark.parametrize("package", TABLE)
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    allowed = {package, *TABLE[package].split(), *FLOOR}
    assert list(TABLE).index(package) == max(list(TABLE).index(each) for each in allowed - FLOOR)
    found = {
        (name, each)
        for name in _SOURCES
        if _package(name) == package
        for each in _inside(name, types_too=True)
        if _package(each) not in allowed
    }
    assert set() == found


def test_the_floor_imports_only_itself() -> None:
    found = {(name, each) for name in FLOOR & set(_SOURCES) for each in _inside(name, types_too=True)}
    assert set() == {(name, each) for name, each in found if each not in FLOOR}


def test_every_module_has_its_place() -> None:
    assert set(TABLE) | FLOOR | _EDGES == {_package(name) for name in _SOURCES}


def test_no_package_imports_the_edges() -> None:
    found = {(name, each) for name in _SOURCES for each in _inside(name) if _package(each) in _EDGES - {"mpr"}}
    assert set() == {(name, each) for name, each in found if _package(name) not in _EDGES}


def test_no_module_imports_itself_through_others() -> None:
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for each in sorted(_inside(name)):
                visit(each, [*path, name])
            done.add(name)

    for name in _SOURCES:
        visit(name, [])
    assert set(_SOURCES) == done


def test_only_the_transport_imports_zeromq() -> None:
    assert {"transport"} == {_package(name) for name in _SOURCES if "zmq" in _outside(name)}


def test_only_one_package_knows_private_names_of_the_sdk() -> None:
    assert {"sdk"} == {_package(name) for name, source in _SOURCES.items() if "rerun_bindings" in source}


def test_only_the_plugin_imports_pytest() -> None:
    assert {"pytest_plugin"} == {_package(name) for name in _SOURCES if "pytest" in _outside(name)}


def test_modules_are_short() -> None:
    lengths = {name: len(source.splitlines()) for name, source in _SOURCES.items()}
    assert {} == {name: length for name, length in lengths.items() if length > 500}
    assert statistics.median(lengths.values()) <= 250


def test_the_library_prints_nothing() -> None:
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in _TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [] == calls
