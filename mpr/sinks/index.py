"""Makes `manifest.jsonl`, the manifest of a folder, again from the properties of its recordings (`mpr index`).

Covers: recordings of tasks that a `DirectorySink` has written.
Does not cover: the form of the manifest (`datasets/manifest.py`).
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpr import files
from mpr.datasets import manifest
from mpr.errors import SinkError
from mpr.rrd import framing
from mpr.sdk.reader import quiet_reader
from mpr.sinks.directory import SHARED

_TYPES = {"bool": "bool", "int64": "int64", "double": "float64", "string": "str"}
_ENTITY = "/__properties"


def make(folder: Path) -> tuple[int, list[Path]]:
    """Replace the manifest of `folder` by a new one. Returns (number of recordings in it, files that are left out).

    A file is left out if it is not complete, or is no recording of a task. `shared.rrd` and hidden files are not looked
    at. Raises `SinkError` if `folder` is no folder, if a program writes recordings into it, or if the manifest cannot
    be written.
    """
    if not folder.is_dir():
        raise SinkError(f"{folder} is no folder")
    _check_unused(folder)
    fields: dict[str, tuple[str, str]] = {}
    lines = []
    left_out = []
    for path in sorted(_recordings(folder)):
        found = _line(path, folder, fields)
        if found is None:
            left_out.append(path)
        else:
            lines.append(found)
    lines.sort(key=lambda line: line["started"] or "")
    file = manifest.ManifestFile(folder, is_new=True)
    file.append([*(manifest.field_line(field, *found) for field, found in fields.items()), *lines])
    file.close()
    return len(lines), left_out


def _check_unused(folder: Path) -> None:
    """Raise `SinkError` if a program writes recordings into `folder`. Such a program has locked `shared.rrd`."""
    for path in (folder / f".{SHARED}.part", folder / SHARED):
        try:
            fd = files.open_regular(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkError(error.errno, f"{folder} is being written by a recording") from error
        except OSError as error:
            # The file system has no locks.
            raise SinkError(error.errno, f"cannot see if a recording writes into {folder}: {error.strerror}") from error
        finally:
            os.close(fd)


def _recordings(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*.rrd"):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in parts)
        if not is_hidden and path.name != SHARED and path.is_file():
            yield path


def _line(path: Path, folder: Path, fields: dict[str, tuple[str, str]]) -> dict[str, Any] | None:
    """Return the line of the manifest for the recording at `path`; None if the file is no complete recording of a task.

    Each argument that `fields` does not have is added to it, with its type and the name of its property.
    """
    if not framing.is_finished(path):
        return None
    try:
        recording_id, values, types = _properties(path)
        about = {name.partition(":")[2]: value for name, value in values.items() if name.startswith("task:")}
        arguments = json.loads(about.get("arguments") or "{}")
        for field, (name, value) in arguments.items():
            if f"args:{name}" in types:
                kind = types[f"args:{name}"]
                fields.setdefault(field, (f"list {kind}" if isinstance(value, list) else kind, name))
        function = about["function"]
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError):
        return None
    nanos = values.get(":RecordingInfo:start_time")
    started = None if nanos is None else datetime.datetime.fromtimestamp(nanos / 1e9, datetime.UTC).isoformat()
    found = path.stat()
    return {
        "path": path.relative_to(folder).as_posix(),
        "name": path.stem,
        "digest": about.get("digest"),
        "repetition": about.get("repetition", 0),
        "recording_id": recording_id,
        "function": function,
        "index": about.get("index"),
        "attempt": about.get("attempt"),
        "args": {field: value for field, (_, value) in arguments.items()},
        "outcome": about.get("outcome"),
        "error": about.get("error"),
        "started": started,
        "seconds": about.get("seconds"),
        "host": about.get("host"),
        "worker": about.get("worker"),
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
    }


def _properties(path: Path) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return (recording id, values, types). Values and types are of the recording's properties.

    Their keys are names such as `task:outcome`. Raises errors of many types if the SDK cannot read the file.
    """
    reader = quiet_reader(path)
    entry = reader.recordings()[0]
    values: dict[str, Any] = {}
    types: dict[str, str] = {}
    for chunk in reader.stream(store=entry):
        entity = str(chunk.entity_path)
        if not entity.startswith(_ENTITY):
            continue
        batch = chunk.to_record_batch()
        for field, column in zip(batch.schema, batch.columns, strict=True):
            cells = column.to_pylist()
            if (field.metadata or {}).get(b"rerun:kind") == b"data" and cells and cells[-1]:
                name = f"{entity.removeprefix(_ENTITY).lstrip('/')}:{field.name}"
                values[name] = cells[-1][0]
                types[name] = _TYPES.get(str(column.type.value_type), "str")
    return entry.recording_id, values, types
