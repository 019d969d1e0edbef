"""Fills in the name template of a data set, such as `{name}/lr={lr:.3g}-seed={seed:04d}.rrd`.

Covers: the fields of a template, their format, and characters and lengths that every file system takes.
Does not cover: two tasks with one name (`naming.py`).
"""

from __future__ import annotations

import dataclasses
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from mpr.errors import ConfigError
from mpr.user_code import represent

#: The fields that every task has.
TASK_FIELDS = frozenset({"name", "task", "index", "attempt", "worker", "digest"})
SUFFIX = ".rrd"

# The longest part of a path, in bytes. Encrypted folders take names of 143 bytes, and a suffix may be added.
_PART_BYTES = 120
_UNUSUAL = re.compile(r"[^\w.\-+=,]")
_FIELD = re.compile(r"[^\W\d]\w*(\.[^\W_]\w*)*")
# Names of devices on Windows, also with an extension.
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{digit}" for name in ("COM", "LPT") for digit in range(1, 10))}


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    literal: str
    field: str | None
    spec: str


class NameTemplate:
    """A template of file names. Raises `ConfigError` if no task can get a valid name from `text`.

    Attributes
    ----------
    fields:
        The names of the fields in the template.
    """

    def __init__(self, text: object) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"the name of a DirectorySink is a template such as '{{name}}.rrd', got {text!r}")
        self._text = text
        self._pieces = [_piece(text, *parsed) for parsed in _parsed(text)]
        self.fields: frozenset[str] = frozenset(each.field for each in self._pieces if each.field is not None)
        self._check()

    def _check(self) -> None:
        shape = "".join(each.literal + ("x" if each.field is not None else "") for each in self._pieces)
        parts = shape.split("/")
        problem = None
        if not shape.endswith(SUFFIX) or parts[-1] == SUFFIX:
            problem = f"its names do not end with {SUFFIX}"
        elif "\\" in shape or "\0" in shape:
            problem = "it has a character that names cannot have"
        elif shape.startswith("/") or "" in parts or any(part.startswith(".") for part in parts):
            problem = "a part of a path is empty or begins with a dot"
        if problem is not None:
            raise ConfigError(f"{self._text!r} is no name of an .rrd file: {problem}")
        example = {"name": "function", "task": 0, "index": 0, "attempt": 1, "worker": 1, "digest": "0" * 32}
        for piece in self._pieces:
            if piece.field in example:
                self._formatted(piece, example[piece.field])

    def check_fields(self, arguments: Mapping[str, Any], function: str) -> None:
        """Raise `ConfigError` if the task of `function` with the fields `arguments` has no value for a field."""
        for field in self.fields - TASK_FIELDS - arguments.keys():
            parts = sorted(name for name in arguments if name.startswith(f"{field}."))
            if parts:
                hint = "it has parts, such as " + ", ".join(f"{{{name}}}" for name in parts[:3])
            else:
                known = [*arguments, *sorted(TASK_FIELDS)]
                hint = "the fields are " + ", ".join(f"{{{name}}}" for name in known[:30])
            raise ConfigError(f"the name {self._text!r} needs {{{field}}}, which a task of {function} lacks: {hint}")

    def filled(self, value_of: Callable[[str], Any], digest: str, suffix: str = "") -> str:
        """Return the name of a task: a relative path with `/`. `value_of` returns the value of a field.

        `suffix` is put before `.rrd`. If a part of the path is too long, it is cut, and ends with the beginning of
        `digest`. Raises `ConfigError` if a value does not fit its format.
        """
        text = "".join(
            each.literal + ("" if each.field is None else self._formatted(each, value_of(each.field)))
            for each in self._pieces
        )
        *folders, file = text.removesuffix(SUFFIX).split("/")
        parts = [_safe_part(part, digest) for part in folders]
        return "/".join([*parts, _safe_part(file, digest, len(suffix)) + suffix + SUFFIX])

    def _formatted(self, piece: _Piece, value: Any) -> str:
        try:
            text = format(value, piece.spec) if piece.spec else str(value)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the name {self._text!r} cannot be filled in: {{{piece.field}:{piece.spec}}} does not fit "
                f"{represent(value)[:100]} ({error})"
            ) from None
        return _UNUSUAL.sub("_", unicodedata.normalize("NFC", text))


def _parsed(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"the name {text!r} cannot be filled in: {error}") from None


def _piece(text: str, literal: str, field: str | None, spec: str | None, conversion: str | None) -> _Piece:
    if field is not None and (not _FIELD.fullmatch(field) or conversion or "{" in (spec or "")):
        raise ConfigError(
            f"the name {text!r} cannot be filled in: {{{field}}} is no name of a parameter, or has more than a format. "
            "Parts of a dataclass or a dict are {cfg.lr}"
        )
    return _Piece(literal, field, spec or "")


def _safe_part(part: str, digest: str, room: int = 0) -> str:
    """Return a part of a path as a name that file systems take. `room` is the length of a suffix to be added."""
    if len(part.encode()) + room > _PART_BYTES:
        cut = part.encode()[: _PART_BYTES - room - 9].decode(errors="ignore")
        part = f"{cut}-{digest[:8]}"
    if part.startswith(".") or not part or part.partition(".")[0].upper() in _DEVICES:
        part = "_" + part
    return part[:-1] + "_" if part.endswith(".") else part
