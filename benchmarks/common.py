"""Repeat measurements in turns, take ratios, and check the files that were written. Every benchmark uses this.

A way is one of the programs that a benchmark compares. The floor is the way with which the others are compared. If a
machine is shared or changes its clock rate, seconds of different runs cannot be compared. Ratios of runs that follow
each other can. So every repetition runs each way once, and each ratio is of two runs of the same repetition. A table
shows the median and the range of the ratios.
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
    """Divide each of `values` by the number at the same index of `floor`. Both numbers are from one round."""
    return [value / base for value, base in zip(values, floor, strict=True)]


def spread(found: Sequence[float]) -> str:
    """Return the median and the range of `found` as text, such as "1.05 (0.98-1.20)"."""
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def ratio(values: Sequence[float], floor: Sequence[float]) -> str:
    """Return the median and the range of `ratios(values, floor)` as text."""
    return spread(ratios(values, floor))


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for the files of one run, and remove the folder at the end of the block.

    Because the files are removed at once, the next run need not wait until the disk has written them.
    """
    with TemporaryDirectory(prefix="mpr-bench-") as folder:
        yield Path(folder)


# --- checks -------------------------------------------------------------------------------------------------------


class WrongOutputError(Exception):
    """The output of a benchmark is wrong, so it has no figures."""


def count_rows(path: Path) -> int:
    """Count the rows in the file at `path` by reading all chunks, without properties and mpr's own notes."""
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
    """Run the SDK's command line `rerun`. Raises `WrongOutputError` if the command fails.

    The native program is started directly. The Python script `rerun`, which usually starts this program, needs more
    time than the check of most files.
    """
    command = [programs.viewer_executable() or "rerun", *map(str, arguments)]
    with (out or Path(os.devnull)).open("wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise WrongOutputError(f"rerun {' '.join(command[1:])} failed: {done.stderr.decode()[-500:]}")


def check_file(path: Path, rows: int) -> None:
    """Raise `WrongOutputError` if the file at `path` is not valid, or does not have exactly `rows` rows."""
    with ThreadPoolExecutor(1) as aside:
        # Both checks run at once, because checking takes longer than most runs.
        verified = aside.submit(rerun_command, "rrd", "verify", path)
        expect(count_rows(path), rows, f"rows in {path.name}")
        verified.result()


def expect(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise WrongOutputError(f"{what}: {found}, not {wanted}")
