"""Makes the folder of a run (one call of pytest), and removes the folders of the oldest runs.

The folder `<output>/<run>/` has the recordings of one run, and the file `run.json`. At the end of the run, `run.json`
lists the results of the tests and all files in the folder. When mpr removes an old run, it removes only these files, so
files that were added later stay. Of a run that was killed before it wrote the list, mpr removes only `run.json`, the
journals, and the recordings that the journals name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from mpr.pytest_plugin.journal import journal_files, read_journals
from mpr.pytest_plugin.options import UNKNOWN_JOB, Settings
from mpr.pytest_plugin.recording import system
from mpr.pytest_plugin.results import RecordedTest

_MANIFEST = "run.json"
# mpr writes this file into the folder of all runs, so that Git ignores this folder.
_IGNORE = ".gitignore"


def make_run_folder(settings: Settings, folder: str, output: str) -> None:
    """Make the folder of the run, with a first `run.json`, if the folder is missing. Raises `OSError` if this fails.

    The first `run.json` has mpr's version, the process id and the CI job from `settings`. `folder` is the folder of the
    run, and `output` the folder above it, which has all runs. If `output` is made too, it gets a `.gitignore` for all
    its files. The two folders are `str` and not `Path`, because a test may have replaced functions that the methods of
    `Path` call.
    """
    if not system.exists(folder):
        is_new = not system.exists(output)
        system.make_folder(folder)
        with suppress(FileExistsError):
            if is_new:
                system.write_new(f"{output}/{_IGNORE}", "*\n")
        with suppress(FileExistsError):
            first = {"mpr": settings.version, "pid": settings.pid, "job": settings.job}
            system.write_new(f"{folder}/{_MANIFEST}", system.to_json(first))


def finish_run_folder(settings: Settings, results: Sequence[RecordedTest]) -> None:
    """Remove the journals, write `run.json`, and remove old runs.

    Call this function when all other files of the run are written, because `run.json` lists them. If the run has no
    file except `run.json` and journals, remove the run's folder instead, and keep the old runs. If `settings.output`
    then has only its `.gitignore`, remove `settings.output` too. Raises `OSError` if a journal cannot be removed, or if
    `run.json` cannot be written.
    """
    folder = settings.folder
    for path in journal_files(folder):
        path.unlink(missing_ok=True)
    files = sorted(str(path.relative_to(folder)) for path in _files(folder))
    if files == [_MANIFEST]:
        # No recording was kept.
        _remove(folder, files)
        if [path.name for path in settings.output.iterdir()] == [_IGNORE]:
            _remove(settings.output, [_IGNORE])
        return
    tests = [asdict(each) for each in results]
    manifest = {"mpr": settings.version, "pid": settings.pid, "job": settings.job, "files": files, "tests": tests}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1, default=os.fspath))
    _remove_old_runs(settings)


def _remove_old_runs(settings: Settings) -> None:
    """Keep the newest `settings.keep_runs` runs, and remove mpr's files from the folders of all older runs.

    Runs of the same CI job are kept too, because the job may upload them at its end. If the CI service does not name
    the job, all runs are kept. Runs that have not finished are kept while their process lives. If a file cannot be
    removed, the next run tries again.
    """
    if settings.job == UNKNOWN_JOB:
        return
    runs = sorted(path.parent for path in settings.output.glob(f"*/{_MANIFEST}"))
    too_many = max(0, len(runs) - settings.keep_runs)
    for folder in [each for each in runs if each != settings.folder][:too_many]:
        # A `run.json` that somebody has changed may have anything in it. Its folder stays.
        with suppress(Exception):
            manifest = json.loads((folder / _MANIFEST).read_text())
            if settings.job is None or manifest.get("job") != settings.job:
                _remove(folder, _ours(folder, manifest))


def _ours(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the paths, relative to `folder`, of the files that a run has made there.

    `manifest` is the content of the run's `run.json`, which lists the files of a finished run. The list is empty if the
    run has not finished and its process still lives, because the run may still add files. If the run was killed, the
    list has `run.json`, the recordings and the journals, but no other files. Raises `ValueError` if `manifest` lists a
    file outside of `folder`.
    """
    files: list[str] | None = manifest.get("files")
    if files is not None:
        if any(os.path.isabs(name) or os.pardir in Path(name).parts for name in files):
            raise ValueError("a file outside the folder of the run")
        return files
    if psutil.pid_exists(manifest["pid"]):
        return []
    # The files are taken from the journals, because the run was killed before it wrote the list.
    return [_MANIFEST, *read_journals(folder).tests, *(path.name for path in journal_files(folder))]


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _remove(folder: Path, names: Sequence[str]) -> None:
    # The manifest is removed last: if another file cannot be removed, the next run finds the manifest and tries again.
    for name in sorted(names, key=lambda name: name == _MANIFEST):
        (folder / name).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(parent)
