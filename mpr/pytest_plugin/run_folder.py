"""The folder of a run, and those of the runs before it.

`<output>/<run>/` has the recordings, and `run.json`: what is known of the tests, and which files mpr has put there.
Only these are ever removed, by the process that pytest was started in, so that a folder which something else writes to
as well loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from mpr.pytest_plugin.journal import journal_files, read_journals
from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import RecordedTest

_MANIFEST = "run.json"
_IGNORE = ".gitignore"


def make_run_folder(settings: Settings) -> Path:
    """The run's folder, made where it is missing. Raises `OSError`."""
    folder = settings.folder
    if not folder.exists():
        is_new = not settings.output.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if is_new:
            (settings.output / _IGNORE).write_text("*\n")
        with contextlib.suppress(FileExistsError), (folder / _MANIFEST).open("x") as file:
            json.dump({"mpr": settings.version, "pid": settings.pid}, file)
    return folder


def finish_run_folder(settings: Settings, results: Sequence[RecordedTest]) -> None:
    """Nothing more is written into the run's folder; make room for the next run. Raises `OSError`."""
    folder = settings.folder
    for path in journal_files(folder):
        path.unlink(missing_ok=True)
    files = sorted(str(path.relative_to(folder)) for path in _files(folder))
    if files == [_MANIFEST]:
        # Nothing was worth keeping.
        _remove(folder, files)
        if [path.name for path in settings.output.iterdir()] == [_IGNORE]:
            _remove(settings.output, [_IGNORE])
        return
    tests = [asdict(each) for each in results]
    manifest = {"mpr": settings.version, "pid": settings.pid, "files": files, "tests": tests}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, default=os.fspath))
    _remove_old_runs(settings)


def _remove_old_runs(settings: Settings) -> None:
    """Remove what mpr has put into the folders of the oldest runs; what cannot be removed is left to the next run."""
    runs = sorted(path.parent for path in settings.output.glob(f"*/{_MANIFEST}"))
    for folder in [each for each in runs if each != settings.folder][: len(runs) - settings.keep_runs]:
        with contextlib.suppress(OSError, ValueError):
            _remove(folder, _ours(folder, json.loads((folder / _MANIFEST).read_text())))


def _ours(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The files that mpr has put into the folder of a run; none while it goes on."""
    files: list[str] | None = manifest.get("files")
    if files is not None:
        return files
    if psutil.pid_exists(manifest["pid"]):
        return []
    # It has not come to its end; its journals say as much.
    return [_MANIFEST, *read_journals(folder).tests, *(path.name for path in journal_files(folder))]


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _remove(folder: Path, names: Sequence[str]) -> None:
    # The manifest last: while it is there, the next run tries again.
    for name in sorted(names, key=lambda name: name == _MANIFEST):
        (folder / name).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(parent)
