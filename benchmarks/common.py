"""Repeat measurements in turns, take ratios, and check the files that were written. Every benchmark uses this.

On a machine that is shared or changes its clock, seconds mean nothing, but ratios of runs that follow each other do. So
every repetition runs each way once, ratios are taken within a repetition, and a table shows their median and range.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from mpr.sdk import programs

R = TypeVar("R")


def interleaved(ways: Mapping[str, Callable[[], R]], rounds: int) -> dict[str, list[R]]:
    """Run each way once per round. Each round begins with another way. A first round warms up and is not counted."""
    names = list(ways)
    readings: dict[str, list[R]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            reading = ways[name]()
            if number:
                readings[name].append(reading)
    return readings


def median(values: Sequence[float]) -> float:
    ascending = sorted(values)
    middle = len(ascending) // 2
    return ascending[middle] if len(ascending) % 2 else (ascending[middle - 1] + ascending[middle]) / 2


def ratios(values: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Return `values / floor`; the two values of a pair are from one round."""
    return [value / base for value, base in zip(values, floor, strict=True)]


def spread(found: Sequence[float]) -> str:
    """Return the median and the range."""
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def ratio(values: Sequence[float], floor: Sequence[float]) -> str:
    """Return the median and range of `values / floor`; the two values of a pair are from one round."""
    return spread(ratios(values, floor))


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for the files of one run. It is removed before the next run, which need not wait for the disk."""
    with TemporaryDirectory(prefix="mpr-bench-") as folder:
        yield Path(folder)


# --- checks -------------------------------------------------------------------------------------------------------


class WrongOutputError(Exception):
    """The output of a benchmark is wrong, so it has no figures."""


def count_rows(path: Path) -> int:
    """Count the rows in the file at `path` by reading all chunks, without properties and mpr's own notes."""
    import rerun as rr

    with warnings.catch_warnings():
        # The files of a benchmark that checks frames itself have no footer.
        warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
        reader = rr.chunk.RrdReader(path)
    return sum(
        chunk.num_rows
        for entry in reader.recordings()
        for chunk in reader.stream(store=entry)
        if not chunk.entity_path.startswith(("/__properties", "/mpr/"))
    )


def rerun_command(*arguments: str | Path, out: Path | None = None) -> None:
    """Run the SDK's command line; raise if it fails.

    This starts the program itself. The script that usually starts it needs more time than the check of most files.
    """
    command = [programs.viewer_executable() or "rerun", *map(str, arguments)]
    with (out or Path(os.devnull)).open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise WrongOutputError(f"rerun {' '.join(command[1:])} failed: {done.stderr.decode()[-500:]}")


def check_file(path: Path, rows: int) -> None:
    """Raise if the file at `path` is not valid, or does not have exactly `rows` rows."""
    with ThreadPoolExecutor(1) as aside:
        # Both checks run at once, because checking takes longer than most runs.
        verified = aside.submit(rerun_command, "rrd", "verify", path)
        expect(count_rows(path), rows, f"rows in {path.name}")
        verified.result()


def expect(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise WrongOutputError(f"{what}: {found}, not {wanted}")
