"""Make a page and a plot of the findings of all benchmarks. The page describes the machine, and has all tables.

`python -m benchmarks` calls this module. Only the plot needs matplotlib.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psutil

from benchmarks import common
from benchmarks.report import Findings, Target

PAGE, PLOT, RECORD = "results.md", "results.svg", "results.jsonl"
_PACKAGES = ("mpr", "rerun-sdk", "pyzmq", "numpy", "pyarrow", "loky", "joblib", "mpire", "pebble")


def write(folder: Path, findings: Sequence[Findings], secs: float, quick: bool) -> None:
    """Write the page and the plot of `findings` to `folder`. `secs` is the time that all benchmarks took together."""
    page = ["# What the benchmarks found", "", *_machine(), f"It took {secs / 60:.0f} minutes{_kind(quick)}.", ""]
    targets = [target for each in findings for target in each.targets]
    asked = [target for target in targets if target.at_most is not None]
    page += [f"## Targets: {sum(each.is_met for each in asked)} of {len(asked)} are met", ""]
    page += ["Median (lowest-highest) of the repetitions; a ratio is taken within one repetition.", ""]
    page += ["| what | found | at most | met |", "|---|---:|---:|:---:|"]
    page += [f"| {' | '.join(target.row())} |" for target in targets]
    page += ["", f"![Each median beside its target]({PLOT})", ""]
    for each in findings:
        page += [f"## {each.question}", "", f"`python -m benchmarks.{each.name}`", ""]
        page += [table.markdown() for table in each.tables]
    (folder / PAGE).write_text("\n".join(page).rstrip() + "\n")
    _draw(folder / PLOT, findings, asked)


def _kind(quick: bool) -> str:
    return ", with `--quick`: fewer repetitions and less data than the targets are meant for" if quick else ""


# --- the machine --------------------------------------------------------------------------------------------------


def _machine() -> list[str]:
    """Describe the machine in lines of Markdown, without its name and the name of its user."""
    memory = psutil.virtual_memory().total / 2**30
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    lines = [
        f"{time.strftime('%Y-%m-%d')}, commit {_commit()}.",
        "",
        f"- {cores} cores of {_processor()}, {memory:.0f} GB of memory; temporary files on {_file_system()}",
        f"- Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {_versions()}",
        f"- load average at the end: {load:.1f} (the benchmarks' own is about {cores})",
        "",
    ]
    return lines


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _file_system() -> str:
    folder = Path(gettempdir()).resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if folder.is_relative_to(each.mountpoint)]
    return max(mounts, key=lambda each: len(each.mountpoint)).fstype if mounts else "an unknown file system"


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"without {package}")
    return ", ".join(found)


def _commit() -> str:
    ran = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or "unknown"


# --- the plot -----------------------------------------------------------------------------------------------------


def _draw(path: Path, findings: Sequence[Findings], asked: Sequence[Target]) -> None:
    import matplotlib

    matplotlib.use("svg")
    # The salt of the random ids in the file is fixed, so that the same findings make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "mpr"
    import matplotlib.pyplot as plt

    lines = [line for each in findings for line in each.lines]
    heights = [0.4 * len(asked) + 1.2, *(3.0 for _ in lines)]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(10, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    _draw_targets(axes[0][0], asked)
    for axis, line in zip(axes[1:, 0], lines, strict=True):
        axis.plot(line.at, line.values, "o-", color="tab:blue")
        axis.set_xscale("log", base=2)
        axis.set_xticks(line.at, [f"{at:g}" for at in line.at])
        axis.set_ylim(bottom=0)
        axis.set_xlabel("workers")
        axis.set_ylabel(line.label)
        axis.set_title(line.title, fontsize=10)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _draw_targets(axis: Any, asked: Sequence[Target]) -> None:
    """Draw a bar for each target, which shows its median as a share of its limit. A line on the bar shows the range."""
    for place, target in enumerate(asked):
        assert target.at_most is not None
        shares = [value / target.at_most for value in target.values]
        middle = common.median(shares)
        color = "tab:green" if target.is_met else "tab:red"
        axis.barh(place, middle, color=color, height=0.6)
        axis.plot([min(shares), max(shares)], [place, place], color="black", linewidth=1)
    axis.axvline(1.0, color="black", linestyle="--", linewidth=1)
    axis.set_yticks(range(len(asked)), [target.what.replace("`", "") for target in asked], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("median (bar) and range (line), as a part of the most that is allowed")
