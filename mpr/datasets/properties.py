"""Gives each field of the arguments one type and one name of its property, in all recordings of a data set.

A catalog server refuses a recording if one property has another type there than in the other recordings. It cannot
show any recording of the data set if two properties of one recording have the same name. So the type and the name of a
field are fixed when a call first has the field.

Covers: types, names, and Arrow arrays of the values.
Does not cover: the encoding of properties (`sinks/task_properties.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mpr.rrd.segment import TaskCall
from mpr.user_code import log as _log
from mpr.user_code import represent

if TYPE_CHECKING:
    import pyarrow as pa

# The characters that a catalog server would replace by `_`.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_]")
# The longest name of a property, in characters, before a number is added.
_NAME_MAX = 100
_LIST = "list "
_TYPES = ("bool", "int64", "float64", "str")
# Beyond this, a float64 does not have every whole number.
_EXACT_MAX = 2**53
_INT64_MAX = 2**63


class MisfitError(Exception):
    """A value does not fit the type of its field."""


class PropertyTypes:
    """Holds the type and the name of each field of a data set. Any thread may call the methods.

    A type is 'bool', 'int64', 'float64', 'str', or 'list ' followed by one of these. The name of a field is the name of
    its property. `known` has the type and the name of each field that earlier runs have fixed.
    """

    def __init__(self, known: Mapping[str, tuple[str, str]] | None = None) -> None:
        # Each change is one call of `setdefault`, which is atomic, so there is no lock. A handler of a signal may call
        # the methods, too.
        self._types: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._warned: dict[str, object] = {}
        for field, (kind, name) in (known or {}).items():
            if kind.removeprefix(_LIST) in _TYPES and self._owners.setdefault(name.lower(), field) == field:
                self._names[field] = name
                self._types[field] = kind

    def fields(self) -> Iterator[tuple[str, str, str]]:
        """Yield (field, type, name) for each field that has a type, in the order in which the types were fixed."""
        for field, kind in list(self._types.items()):
            yield field, kind, self.name(field)

    def learn(self, calls: Sequence[TaskCall]) -> None:
        """Fix the type and the name of each new field of `calls`, the descriptions of the tasks of one call.

        The type of a field is the type of its first value. It is 'float64' instead of 'int64' if any value of the field
        in `calls` is a float, or if the parameter has the annotation `float`. A field without a value gets no type yet.
        """
        found: dict[str, str] = {}
        for call in calls:
            for field, value in call.arguments.items():
                if field in self._types:
                    continue
                kind = _type_of(value)
                if kind == "int64" and field in call.floats:
                    kind = "float64"
                if kind is not None:
                    found[field] = _wider(found.get(field, kind), kind)
        for field, kind in found.items():
            self.name(field)
            self._types.setdefault(field, kind)

    def name(self, field: str) -> str:
        """Return the name of the property for `field`. No other field of the data set has this name.

        The name has only ASCII letters, digits and `_`. If another field has the same name, a number is added.
        """
        known = self._names.get(field)
        if known is not None:
            return known
        name = base = _UNUSUAL.sub("_", field)[:_NAME_MAX] or "_"
        count = 1
        # Queries in SQL do not distinguish upper and lower case.
        while self._owners.setdefault(name.lower(), field) != field:
            count += 1
            name = f"{base}_{count}"
        return self._names.setdefault(field, name)

    def columns(self, call: TaskCall) -> tuple[dict[str, pa.Array], str | None]:
        """Return (arrays, text): the typed values of `call`, and a text about the values that do not fit.

        The keys of `arrays` are names of properties. Each array has the value of one field. If the value does not fit
        the type of the field, the array has null, and the text has the field and the value. If all values fit, the text
        is None. For each field, the first value that does not fit is also logged.
        """
        arrays: dict[str, pa.Array] = {}
        misfits = []
        for field, value in call.arguments.items():
            kind = self._types.get(field)
            if kind is None:
                continue
            try:
                fitting = _fitted(kind, value)
            except MisfitError:
                fitting = None
                misfits.append(f"{field}={represent(value)}")
                self._warn_once(field, kind, value)
            arrays[self.name(field)] = as_array(kind, fitting)
        return arrays, ", ".join(misfits) if misfits else None

    def _warn_once(self, field: str, kind: str, value: Any) -> None:
        mark = object()
        if self._warned.setdefault(field, mark) is mark:
            _log.warning(
                "the argument %s of a task is %s, which is no %s as in the first task of the data set: the property is "
                "null, and `task:args_text` has the value",
                field,
                represent(value)[:200],
                kind,
            )


def as_array(kind: str, value: Any) -> pa.Array:
    """Return an Arrow array of type `kind` (see `PropertyTypes`) with `value`.

    If `value` is a list, the array has the values of the list.
    """
    import pyarrow as pa

    types = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "str": pa.string()}
    if kind.startswith(_LIST) and value is not None:
        return pa.array(value, types[kind.removeprefix(_LIST)])
    return pa.array([value], types[kind.removeprefix(_LIST)])


def typed(values: Mapping[str, tuple[str, Any]]) -> dict[str, pa.Array]:
    """Return `values`, which are pairs (type, value), as Arrow arrays with the same names."""
    return {name: as_array(kind, value) for name, (kind, value) in values.items()}


def _type_of(value: Any) -> str | None:
    """Return the type of the plain value `value`. If `value` is None or an empty list, return None."""
    if value is None:
        return None
    if isinstance(value, list):
        return _type_of_list(value)
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -_INT64_MAX <= value < _INT64_MAX else "str"
    return "float64" if isinstance(value, float) else "str"


def _type_of_list(values: Iterable[Any]) -> str | None:
    kinds = {_type_of(each) for each in values}
    if not kinds:
        return None
    if kinds == {"int64", "float64"}:
        return _LIST + "float64"
    # A list of several types becomes a text.
    return _LIST + str(kinds.pop()) if len(kinds) == 1 else "str"


def _wider(first: str, second: str) -> str:
    """Return the type for values of two types: 'float64' for 'int64' and 'float64' (also in lists), else `first`."""
    for head in ("", _LIST):
        if {first, second} == {head + "int64", head + "float64"}:
            return head + "float64"
    return first


def _fitted(kind: str, value: Any) -> Any:
    """Return the plain value `value` as a value of type `kind`, or raise `MisfitError`."""
    if value is None:
        return None
    if kind.startswith(_LIST):
        if not isinstance(value, list):
            raise MisfitError
        return [_fitted(kind.removeprefix(_LIST), each) for each in value]
    if kind == "str":
        return _text_of(value)
    actual = _type_of(value)
    if actual == kind:
        return value
    if kind == "float64" and actual == "int64" and abs(value) <= _EXACT_MAX:
        return float(value)
    if kind == "int64" and actual == "float64" and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value)
    raise MisfitError


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | float) or (isinstance(value, int) and _type_of(value) == "int64"):
        raise MisfitError
    if isinstance(value, list):
        if _type_of(value) != "str":
            raise MisfitError
        return repr(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
