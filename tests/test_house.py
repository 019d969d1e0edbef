"""Rules that keep the code readable for a stranger: sizes, one name for each thing, one place for changes."""

from __future__ import annotations

import ast
import builtins
import collections
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpr
from tests.test_layers import FLOOR, TABLE

_FOLDER = Path(mpr.__file__).parent
_ROOT = _FOLDER.parent


def _trees(folder: Path, start: Path) -> dict[str, ast.Module]:
    """The source files below `folder`, by their paths relative to `start`."""
    return {str(path.relative_to(start)): ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}


_TREES = _trees(_FOLDER, _FOLDER)
# These files follow the glossary too, but need not keep the limits of size.
_OTHER_TREES = {
    file: tree for name in ("tests", "benchmarks", "examples") for file, tree in _trees(_ROOT / name, _ROOT).items()
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef

# Words that the code used before, each for a thing that has another name now.
_OLD_WORDS = {
    "adopt", "amend", "beginner", "bequest", "bring", "brought", "bury", "courier", "crew", "disown", "dismiss",
    "family", "hire", "hiring", "lane", "meter", "nowhere", "parcel", "prologue", "reel", "shelf", "sibling", "slate",
    "spool", "staff", "tape", "tell", "throttle", "ticker", "told", "torn", "unwatched", "verdict", "withdraw",
}  # fmt: skip
# Names that have such a word for another reason.
_STAYS = {
    "torn_processes",  # public
    "tell",  # a method of Python's files
    "LANE",  # in an example: where a robot walks
}


def _definitions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, _Function | ast.ClassDef]]:
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield file, node


def _lines(node: _Function | ast.ClassDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _own_lines(function: _Function) -> int:
    """The lines of a function without its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    assert function.end_lineno is not None
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_functions_and_classes_are_short() -> None:
    classes = {(file, node.name): _lines(node) for file, node in _definitions(_TREES) if isinstance(node, ast.ClassDef)}
    assert {} == {name: lines for name, lines in classes.items() if lines > 300}
    functions = {
        (file, node.name): _own_lines(node) for file, node in _definitions(_TREES) if not isinstance(node, ast.ClassDef)
    }
    assert {} == {name: lines for name, lines in functions.items() if lines > 60}


def test_no_class_has_many_methods() -> None:
    methods = {
        (file, node.name): sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
        for file, node in _definitions(_TREES)
        if isinstance(node, ast.ClassDef)
    }
    assert {} == {name: count for name, count in methods.items() if count > 25}


def test_no_class_has_the_name_of_another() -> None:
    names = collections.Counter(node.name for _, node in _definitions(_TREES) if isinstance(node, ast.ClassDef))
    assert {} == {name: count for name, count in names.items() if count > 1}


def _names(tree: ast.AST) -> Iterator[str]:
    """All names that the code of a file gives or uses."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.alias(name=name, asname=other):
                yield from [*name.split("."), *([other] if other else [])]
            case _:
                pass


def _words(name: str) -> set[str]:
    """The words of a name, also in the singular. Those of `_held_parcels` and of `HeldParcels` are the same."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {word.lower() for word in words} | {word.lower().removesuffix("s") for word in words}


def test_the_words_of_a_name_are_found() -> None:
    assert {"held", "parcel", "parcels"} == _words("_held_parcels") == _words("HeldParcels") == _words("HELD_PARCELS")


def _old_names(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """The names of files, folders and in the code that have a word of `_OLD_WORDS`."""
    return {
        (file, name)
        for file, tree in trees.items()
        for name in {*_names(tree), *Path(file).with_suffix("").parts}
        if name not in _STAYS and _OLD_WORDS & _words(name)
    }


def test_an_old_word_is_found_in_every_kind_of_name() -> None:
    code = """
import a.lane_1, b as lane_2
class Lane3:
    def lane_4(self, lane_5, *, lane_6=0): ...
try:
    lane_7 = f(lane_8=x.lane_9)
except E as lane_10:
    match lane_7:
        case [*lane_11] | (_ as lane_12): ...
"""
    found = {name for _, name in _old_names({"lane_13/lane_14.py": ast.parse(code)})}
    assert {"Lane3", *(f"lane_{number}" for number in range(1, 15) if number != 3)} == found


def test_no_name_has_a_word_that_was_given_up() -> None:
    assert {"tests", "benchmarks", "examples"} == {Path(file).parts[0] for file in _OTHER_TREES}
    assert set() == _old_names(_TREES) | _old_names(_OTHER_TREES)


@pytest.mark.parametrize("package", TABLE)
def test_a_package_says_what_it_covers_and_what_it_may_import(package: str) -> None:
    text = ast.get_docstring(_TREES[f"{package}/__init__.py"])
    assert text is not None
    assert "Covers: " in text
    assert "Does not cover: " in text
    (allowed,) = re.findall(r"May import: (.*?)\.", text, re.DOTALL)
    assert TABLE[package].split() == ([] if "nothing" in allowed else allowed.replace(",", " ").split())


def test_no_docstring_begins_with_a_question_word() -> None:
    found = [
        f"{file}:{node.lineno}"
        for file, node in [*_definitions(_TREES), *_definitions(_OTHER_TREES)]
        if re.match(r"(What|Who\w*|Where)\b", ast.get_docstring(node) or "")
    ]
    assert [] == found


# Classes whose state only their own module may change, by that module.
_CHANGED_ONLY_THERE = {
    "aggregator/intake.py": "ProducerIntake",
    "scheduler/work_item.py": "WorkItem",
    "scheduler/worker_handle.py": "WorkerHandle",
    "live/exporter_handle.py": "ExporterHandle",
}


def _fields(file: str, name: str) -> set[str]:
    """The attributes that the class `name` in `file` declares or sets of itself."""
    (found,) = (node for node in _TREES[file].body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = {
        each.target.id for each in found.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return fields | {
        target.attr for target in _targets(found) if isinstance(target.value, ast.Name) and target.value.id == "self"
    }


def _targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    """The attributes that are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def _variables_of(tree: ast.AST, name: str) -> set[str]:
    """The variables of a file that are annotated as the class `name`, or made by it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=variable, annotation=annotation) if annotation is not None:
                if name in _names(annotation):
                    found.add(variable)
            case ast.AnnAssign(target=ast.Name(id=variable), annotation=annotation) if name in _names(annotation):
                found.add(variable)
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Call(func=ast.Name(id=called))):
                if called == name:
                    found.add(variable)
            case _:
                pass
    return found


@pytest.mark.parametrize(("file", "name"), _CHANGED_ONLY_THERE.items())
def test_state_is_changed_only_in_its_own_module(file: str, name: str) -> None:
    fields = _fields(file, name)
    assert fields
    by_name = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    found = []
    for other, tree in _TREES.items():
        if other != file:
            variables = _variables_of(tree, name) | {by_name, by_name.rpartition("_")[2], "each", "found"}
            for target in _targets(tree):
                owner = target.value
                owner_name = (
                    owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
                )
                if target.attr in fields and owner_name in variables:
                    found.append(f"{other}:{target.lineno} {owner_name}.{target.attr}")
    assert [] == found


def test_only_the_floor_and_the_entry_points_are_at_the_top() -> None:
    at_top = {Path(file).stem for file in _TREES if "/" not in file}
    assert {*FLOOR, "__init__", "__main__", "cli"} == at_top


def test_a_closed_descriptor_is_forgotten_before_it_is_closed() -> None:
    # The system gives the number to the next file. Code that still has the number would write into that file.
    closed = {
        (file, node.lineno)
        for file, tree in _TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "os.close"
        and isinstance(node.args[0], ast.Attribute)
    }
    assert set() == closed


# --- code of a user -----------------------------------------------------------------------------------------------


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _harmful_calls(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """The calls that may raise an exception of a user, and that `mpr/user_code.py` makes for all other modules."""
    found = set()
    for file, tree in trees.items():
        for call in _calls(tree):
            name = ast.unparse(call.func)
            is_logger = name.endswith("getLogger") and [ast.unparse(each) for each in call.args] == ["'mpr'"]
            if is_logger or name.rpartition(".")[2] in (
                "format_exception",
                "format_exc",
                "print_exception",
                "print_exc",
            ):
                found.add((file, name))
    return found


def test_a_call_that_a_user_s_code_may_break_is_found() -> None:
    code = "logging.getLogger('mpr'); logging.getLogger('x'); traceback.format_exc(); format_exception(e); print(e)"
    expected = {("a.py", "logging.getLogger"), ("a.py", "traceback.format_exc"), ("a.py", "format_exception")}
    assert expected == _harmful_calls({"a.py": ast.parse(code)})


def test_only_one_module_logs_and_formats_exceptions() -> None:
    # The plugin for pytest runs in the tests' process, in the main thread.
    trees = {file: tree for file, tree in _TREES.items() if not file.startswith("pytest_plugin")}
    assert {"mpr/user_code.py"} == {f"mpr/{file}" for file, _ in _harmful_calls(trees)}


def _globals_of_finalizers(tree: ast.Module) -> set[str]:
    """The names that methods `__del__` use, and that are neither their own nor built in."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__del__":
            names = {each.id: each for each in ast.walk(node) if isinstance(each, ast.Name)}
            own = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            own |= {
                each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            inside = {each.id for line in node.body for each in ast.walk(line) if isinstance(each, ast.Name)}
            found |= {name for name in names if name in inside and name not in own and not hasattr(builtins, name)}
    return found


def test_the_globals_of_a_finalizer_are_found() -> None:
    code = "class A:\n    def __del__(self, b: C = d.e) -> F:\n        g = b\n        print(g, h.i)"
    assert {"h"} == _globals_of_finalizers(ast.parse(code))


def test_a_finalizer_uses_no_globals() -> None:
    """The interpreter may call it at its exit, when the globals of the module are gone."""
    assert {} == {file: names for file, tree in _TREES.items() if (names := _globals_of_finalizers(tree))}
