"""Which module knows of which other: read from the source, imports within functions included."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpr

_FOLDER = Path(mpr.__file__).parent


def _name(path: Path) -> str:
    """Of a module within mpr; a package has the name of its folder."""
    parts = path.relative_to(_FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


_SOURCES = {_name(path): path.read_text() for path in sorted(_FOLDER.rglob("*.py"))}
_TREES = {name: ast.parse(source) for name, source in _SOURCES.items()}

# These neither import the SDK themselves nor need it to be tested.
_WITHOUT_SDK = [
    "aggregator", "ambient", "background", "carrying", "config", "courier_config", "crew", "delivery", "dispatcher",
    "ending", "endings", "errors", "failpoints", "futures", "hiring", "inbox", "insights", "known_producer",
    "lifecycle", "live", "live_messages", "live_sinks", "loss", "main_module", "manifest", "messages", "meter",
    "outbox", "parcel", "parts", "pickling", "pool", "prefixes", "processes", "recent", "relabel", "results", "rrd",
    "sampler", "scheduler", "shelf", "showing", "sink", "slate", "staff", "summary", "tape", "telemetry", "ticker",
    "transport", "watching", "writers",
]  # fmt: skip
# What a test run needs, and nobody else.
_PLUGIN = {name for name in _SOURCES if name.partition(".")[0] == "pytest_plugin"}
_FLOOR = {"config", "errors", "lifecycle", "messages", "rrd", "scheduler"}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those for type checkers only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _is_type_checking(child):
            yield from _nodes(child)


def _imported(name: str) -> set[str]:
    """The full names of the modules that a module imports; for `from mpr import rrd` that is `mpr.rrd`."""
    found: set[str] = set()
    for node in _nodes(_TREES[name]):
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


def _inside(name: str) -> set[str]:
    """The modules of mpr that a module imports."""
    return {each.removeprefix("mpr.") for each in _imported(name) if each.startswith("mpr.")}


def _packages(name: str) -> set[str]:
    return {each.partition(".")[0] for each in _imported(name)}


def test_the_reading_of_imports_finds_them() -> None:
    assert {
        "config", "errors", "known_producer", "lifecycle", "loss", "messages", "parcel", "pickling",
        "running_task", "scheduler", "slate", "staff", "transport", "watching",
    } == _inside("dispatcher")  # fmt: skip
    # Within functions only.
    assert "pyarrow" in _packages("manifest")


def test_no_module_needs_itself() -> None:
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


def test_only_the_transport_knows_zeromq() -> None:
    assert ["transport"] == [name for name in _SOURCES if "zmq" in _packages(name)]


def test_only_one_module_knows_private_names_of_the_sdk() -> None:
    assert ["entries"] == [name for name, source in _SOURCES.items() if "rerun_bindings" in source]


@pytest.mark.parametrize("name", _WITHOUT_SDK)
def test_a_module_that_has_nothing_to_do_with_the_sdk_does_not_import_it(name: str) -> None:
    assert set() == {"rerun", "rerun_bindings"} & _packages(name)


def test_only_the_plugin_knows_pytest() -> None:
    assert set() == {name for name in _SOURCES if "pytest" in _packages(name)} - _PLUGIN
    assert set() == {name for name in set(_SOURCES) - _PLUGIN if _PLUGIN & _inside(name)}


def test_the_lowest_modules_know_only_each_other() -> None:
    assert {name: set() for name in _FLOOR} == {name: _inside(name) - _FLOOR for name in _FLOOR}


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
