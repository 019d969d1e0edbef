"""Finds timelines and components that have different types, usually because two processes log them differently.

A column is a timeline, or a component of an entity. Rerun keeps one type for each column of a recording, and shows rows
of another type wrongly or not at all. The types are read from manifests, and rows are not decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from mpr.rrd import manifest

if TYPE_CHECKING:
    import pyarrow as pa


_Column: TypeAlias = tuple[bytes, str, str]
"""The encoded id of the recording, the entity path (empty for a timeline), and the name of a column."""


class ColumnTypes:
    """Remembers the first type of each column, and the process that gave this type."""

    def __init__(self) -> None:
        self._first: dict[_Column, tuple[str, str]] = {}
        self._noted: set[tuple[_Column, str]] = set()

    def note(self, who: str, footer: bytes) -> list[str]:
        """Compare the type of each column in `footer` with the first type that this column had. Remember new columns.

        `footer` is the payload of the last frame of a Rerun stream. `who` names the process that has written the
        stream. Returns a sentence for each column whose type differs from its first type, unless one of the two types
        is null, or this type of the column was reported before.
        """
        sentences = []
        for store, schema in manifest.schemas(footer):
            for field in schema:
                meta = field.metadata or {}
                kind = meta.get(b"rerun:kind")
                if kind == b"index":
                    column = (store, "", field.name)
                elif kind == b"data":
                    column = (store, meta[b"rerun:entity_path"].decode(), meta[b"rerun:component"].decode())
                else:
                    continue
                found = _type_name(field.type, is_timeline=not column[1])
                first, first_who = self._first.setdefault(column, (found, who))
                if found != first and "null" not in (found, first) and (column, found) not in self._noted:
                    self._noted.add((column, found))
                    sentences.append(_sentence(column, first, first_who, found, who))
        return sentences


def _sentence(column: _Column, first: str, first_who: str, other: str, other_who: str) -> str:
    _, entity, name = column
    what = f"component {name!r} of {entity}" if entity else f"timeline {name!r}"
    return f"{what} is {first} in {first_who}, and {other} in {other_who}"


def _type_name(kind: pa.DataType, *, is_timeline: bool) -> str:
    """Return a name for the type `kind` of a column. Two types with one name count as the same type.

    The name for a timeline is in the words of `rr.set_time`: a sequence, a duration or a timestamp.
    """
    import pyarrow as pa

    if is_timeline:
        if pa.types.is_duration(kind):
            return "a duration"
        return "a timestamp" if pa.types.is_timestamp(kind) else "a sequence"
    # `not null` is removed, because two types that differ only in this are the same type for Rerun.
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return str(inner).replace(" not null", "")
