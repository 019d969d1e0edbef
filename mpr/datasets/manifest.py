"""Reads and writes `manifest.jsonl`: one line of JSON per recording of a data set, and one per field of its arguments.

The file is an index: `mpr index` can make it again from the recordings. The parent only appends lines. So if the
parent is killed, at most the last line is incomplete. A reader ignores an incomplete line.

There are three kinds of lines:

- `{"field": "cfg.lr", "type": "float64", "property": "cfg_lr"}`: the type and the property of an argument
- `{"path": "a.rrd", "outcome": "returned", ...}`: a recording that is complete. Of several lines with one path, the
  last one counts.
- `{"path": "a.rrd", "moved_to": "b.rrd"}`: the file has another name now

Covers: the form of the file.
Does not cover: which tasks are skipped (`data_set.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mpr import files
from mpr.errors import SinkError

NAME = "manifest.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeIndex:
    """The contents of a manifest.

    Attributes
    ----------
    fields:
        For each field of the arguments: its type, and the name of its property.
    episodes:
        For each path: the line of the recording. The order is the order of these lines in the file.
    """

    fields: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    episodes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def read(folder: Path) -> EpisodeIndex:
    """Return the contents of the manifest in `folder`; empty if there is none. Lines that are no JSON are left out.

    Raises `SinkError` if the file cannot be read.
    """
    found = EpisodeIndex()
    try:
        fd = files.open_regular(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return found
    except OSError as error:
        raise SinkError(error.errno, f"cannot read {folder / NAME}: {error.strerror}") from error
    with open(fd, "rb") as file:
        for line in file:
            _take(found, line)
    return found


def _take(found: EpisodeIndex, line: bytes) -> None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return
    if not isinstance(entry, dict):
        return
    if isinstance(field := entry.get("field"), str):
        found.fields.setdefault(field, (str(entry.get("type")), str(entry.get("property"))))
        return
    path, target = _inside(entry.get("path")), _inside(entry.get("moved_to"))
    if path is None:
        return
    before = found.episodes.pop(path, None)
    if "moved_to" not in entry:
        found.episodes[path] = entry
    elif before is not None and target is not None:
        found.episodes[target] = {**before, "path": target}


def _inside(path: object) -> str | None:
    """Return `path` if it is the relative path of a file in the folder, and else None."""
    if isinstance(path, str) and path and not path.startswith("/") and "/../" not in f"/{path}/":
        return path
    return None


class ManifestFile:
    """Appends lines to the manifest in `folder`. Raises `SinkError` if the file cannot be opened or written.

    If `is_new` is True, an earlier manifest is replaced.
    """

    def __init__(self, folder: Path, *, is_new: bool = False) -> None:
        self._path = folder / NAME
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_new else 0)
            self._fd = files.open_regular(self._path, flags, 0o666)
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                # A killed parent has left an incomplete line.
                os.write(self._fd, b"\n")
        except OSError as error:
            raise self._failure(error) from error

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append `lines`. Their values must be values of JSON."""
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _failure(self, error: OSError) -> SinkError:
        return SinkError(error.errno, f"cannot write {self._path}: {error.strerror}")


def field_line(field: str, kind: str, name: str) -> dict[str, Any]:
    """Return the line for the field `field` of the arguments. `kind` is its type, `name` the name of its property."""
    return {"field": field, "type": kind, "property": name}


def as_json(value: Any) -> Any:
    """Return a plain value (see `arguments.py`) as a value of JSON. Times and durations become a text."""
    if value is None or isinstance(value, bool | int | float | str | list):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
