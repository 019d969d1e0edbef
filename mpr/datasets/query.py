"""Selects and sorts the recordings of a data set, from its manifest alone: `mpr ls`, `mpr open` and `mpr.read_runs`.

Covers: the columns of a recording, and the small language of `--where` and `--sort`.
Does not cover: the form of the manifest (`manifest.py`), the commands (`cli.py`).
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr.datasets import manifest
from mpr.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
# The entries of a line that are only for mpr itself.
_INTERNAL = ("args", "key", "other", "mtime_ns", "repetition")
# An argument that has the name of another column is `args.<name>`.
_PREFIX = "args."


def runs(folder: Path) -> list[dict[str, Any]]:
    """Return the columns of each recording in the manifest of `folder`, sorted by path. Arguments are columns, too.

    Raises `SinkError` if the manifest cannot be read, and `ConfigError` if there is none.
    """
    found = manifest.read(folder)
    if not found.episodes and not (folder / manifest.NAME).exists():
        raise ConfigError(
            f"{folder} has no {manifest.NAME}: a DirectorySink writes it if it has a name or resume=True, and "
            f"`mpr index {folder}` makes it from the recordings"
        )
    return [_columns(found.episodes[path]) for path in sorted(found.episodes)]


def _columns(line: Mapping[str, Any]) -> dict[str, Any]:
    about = {key: value for key, value in line.items() if key not in _INTERNAL}
    arguments = line.get("args")
    if isinstance(arguments, dict):
        about |= {(f"{_PREFIX}{field}" if field in about else field): value for field, value in arguments.items()}
    return about


def selected(
    found: Sequence[dict[str, Any]], where: str | None = None, sort: str | None = None
) -> list[dict[str, Any]]:
    """Return the recordings in `found` that match the condition `where`, sorted by the column `sort`.

    `where` is an expression such as `lr < 0.1 and outcome != 'returned'`. A comparison with a missing value is false,
    unless it has the constant `None`, as in `error == None`. A comparison of values that cannot be compared is false.
    `sort` is the name of a column, with `-` in front for the reverse order. Recordings without a value in this column
    come last. If `where` is None, all recordings match. If `sort` is None, the order stays. Raises `ConfigError` if
    `where` or `sort` cannot be used.
    """
    kept = list(found)
    names = {name for each in kept for name in each}
    if where is not None:
        condition = _condition(where, names)
        kept = [each for each in kept if _value(condition, each)]
    if sort is not None:
        kept = _sorted(kept, sort, names)
    return kept


def _sorted(found: list[dict[str, Any]], sort: str, names: set[str]) -> list[dict[str, Any]]:
    name = sort.removeprefix("-")
    _check_name(name, names)
    present = [each for each in found if each.get(name) is not None]
    missing = [each for each in found if each.get(name) is None]

    def key(each: Mapping[str, Any]) -> tuple[bool, Any]:
        # Numbers come before texts, if a column has both.
        value = each[name]
        is_number = isinstance(value, int | float)
        return not is_number, value if is_number else str(value)

    return [*sorted(present, key=key, reverse=sort.startswith("-")), *missing]


def _condition(text: str, names: set[str]) -> ast.expr:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{text!r} is no condition such as \"lr < 0.1 and outcome != 'returned'\": {error}") from None
    _check(tree, text, names)
    return tree


def _check(node: ast.expr, text: str, names: set[str]) -> None:
    """Raise `ConfigError` if `node` has anything but names, constants, lists, comparisons, `and`, `or` and `not`."""
    match node:
        case ast.BoolOp():
            parts = node.values
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            parts = [node.operand]
        case ast.Compare() if all(type(each) in _COMPARISONS for each in node.ops):
            parts = [node.left, *node.comparators]
        case ast.List() | ast.Tuple():
            parts = node.elts
        case ast.Constant():
            parts = []
        case ast.Name() | ast.Attribute():
            parts = []
            _check_name(_name(node), names)
        case _:
            raise ConfigError(
                f"{ast.unparse(node)!r} in {text!r} is not possible: names of columns, numbers, texts, lists, "
                "comparisons, `in`, `and`, `or` and `not` are"
            )
    for part in parts:
        _check(part, text, names)


def _check_name(name: str, names: set[str]) -> None:
    if names and name not in names:
        raise ConfigError(f"no recording has {name!r}: the columns are {', '.join(sorted(names))}")


def _name(node: ast.expr) -> str:
    return ast.unparse(node)


def _value(node: ast.expr, run: Mapping[str, Any]) -> Any:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_value(each, run) for each in node.values)
        case ast.BoolOp():
            return any(_value(each, run) for each in node.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, run)
        case ast.UnaryOp():
            value = _value(node.operand, run)
            return -value if isinstance(value, int | float) else None
        case ast.Compare():
            return _compared(node, run)
        case ast.List() | ast.Tuple():
            return [_value(each, run) for each in node.elts]
        case ast.Constant():
            return node.value
        case _:
            return run.get(_name(node))


def _compared(node: ast.Compare, run: Mapping[str, Any]) -> bool:
    left = _value(node.left, run)
    for sign, each in zip(node.ops, node.comparators, strict=True):
        right = _value(each, run)
        has_none = any(isinstance(part, ast.Constant) and part.value is None for part in (node.left, *node.comparators))
        if (left is None or right is None) and not has_none:
            return False
        try:
            if not _COMPARISONS[type(sign)](left, right):
                return False
        except TypeError:
            return False
        left = right
    return True


def shown(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of `found`: the path, the outcome, the arguments that differ, the time and the size.

    The first line has the names of the columns.
    """
    base = {"path", "name", "digest", "recording_id", "function", "index", "attempt", "outcome", "error", "started"}
    base |= {"seconds", "host", "worker", "size", "sdk"}
    arguments = dict.fromkeys(name for each in found for name in each if name not in base)
    varying = [name for name in arguments if len({repr(each.get(name)) for each in found}) > 1]
    columns = ["path", "outcome", *varying, "seconds", "size"]
    rows = [columns, *([_cell(each.get(name)) for name in columns] for each in found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    if not text.isprintable():
        text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_runs(folder: Path | str, where: str | None = None, sort: str | None = None) -> pa.Table:
    """Return a table with one row per recording in a folder that a `DirectorySink` has written, as a `pyarrow.Table`.

    Only the manifest of the folder is read. The arguments of the tasks are columns with one type each. Take
    `.to_pandas()` or `polars.from_arrow(...)` for a data frame.

    Parameters
    ----------
    folder:
        The path of the folder.
    where, sort:
        As in `mpr ls`: a condition such as `"lr < 0.1 and outcome == 'returned'"`, and the name of a column to sort by,
        with `-` in front for the reverse order.

    Raises
    ------
    ConfigError
        If the folder has no manifest, or if `where` or `sort` cannot be used.
    SinkError
        If the manifest cannot be read.
    """
    import pyarrow as pa

    found = selected(runs(Path(folder)), where, sort)
    names = list(dict.fromkeys(name for each in found for name in each))
    return pa.table({name: _array([each.get(name) for each in found]) for name in names})


def _array(values: list[Any]) -> pa.Array:
    """Return `values` as an array; as texts if they have several types."""
    import pyarrow as pa

    kinds = {type(each) for each in values if each is not None}
    if kinds == {int, float}:
        values = [None if each is None else float(each) for each in values]
    elif len(kinds) > 1:
        values = [each if each is None or isinstance(each, str) else repr(each) for each in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if each is None else repr(each) for each in values])
