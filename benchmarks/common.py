"""Repeat measurements in turns, take ratios, and check the files that were written. Every benchmark uses this.

A way is one of the programs that a benchmark compares. The floor is the way with which the others are compared. A round
runs each way once. Seconds that were measured at different times cannot be compared, because other programs may use the
machine, and its clock rate may change. The ratio of two runs that follow each other can be compared. So each ratio is
of two runs of the same round. A table shows the median and the range of these ratios.
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
    """Run each way once in each of `rounds` rounds. Return the readings of each way, in the order of the rounds.

    A reading is what the function of a way returns. Each round begins with another way. One more round comes first. It
    warms up the machine, and its readings are dropped.
    """
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
    """Divide each of `values` by the number at the same index of `floor`. Both numbers are from one round."""
    return [value / base for value, base in zip(values, floor, strict=True)]


def spread(found: Sequence[float]) -> str:
    """Return the median and the range of `found` as text, such as "1.05 (0.98-1.20)"."""
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def ratio(values: Sequence[float], floor: Sequence[float]) -> str:
    """Return the median and the range of `ratios(values, floor)` as text."""
    return spread(ratios(values, floor))


@contextmanager
def scratch(*, in_memory: bool = False) -> Iterator[Path]:
    """Make a folder for the files of one run, and remove the folder with its files at the end of the block.

    The files are removed at once, so that the disk need not write them while the next run is measured. With
    `in_memory`, the folder is in `/dev/shm`, so that no disk is measured at all.
    """
    with TemporaryDirectory(prefix="mpr-bench-", dir="/dev/shm" if in_memory else None) as folder:
        yield Path(folder)


# --- checks -------------------------------------------------------------------------------------------------------


class WrongOutputError(Exception):
    """The output of a benchmark is wrong. The benchmark ends without figures."""


def count_rows(path: Path) -> int:
    """Return the number of rows in the file at `path`, without properties and the rows that mpr itself logs."""
    import rerun as rr

    with warnings.catch_warnings():
        # The reader warns of files without a footer, but some benchmarks count the rows of such files.
        warnings.simplefilter("ignore", rr.error_utils.RerunWarning)
        reader = rr.chunk.RrdReader(path)
    return sum(
        chunk.num_rows
        for entry in reader.recordings()
        for chunk in reader.stream(store=entry)
        if not chunk.entity_path.startswith(("/__properties", "/mpr/"))
    )


def rerun_command(*arguments: str | Path, out: Path | None = None) -> None:
    """Run the SDK's command `rerun` with `arguments`. Raises `WrongOutputError` if the command fails.

    `out` is the file for its standard output; None drops the output. This function starts the native program of the SDK
    directly. The Python script `rerun` would start it too, but the script alone takes longer than most checks.
    """
    command = [programs.viewer_executable() or "rerun", *map(str, arguments)]
    with (out or Path(os.devnull)).open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise WrongOutputError(f"rerun {' '.join(command[1:])} failed: {done.stderr.decode()[-500:]}")


def check_file(path: Path, rows: int) -> None:
    """Raise `WrongOutputError` if the file at `path` is not valid, or does not have exactly `rows` rows."""
    with ThreadPoolExecutor(1) as aside:
        # Both checks run at the same time, because a check takes longer than most runs.
        verified = aside.submit(rerun_command, "rrd", "verify", path)
        expect(count_rows(path), rows, f"rows in {path.name}")
        verified.result()


def expect(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise WrongOutputError(f"{what}: {found}, not {wanted}")
