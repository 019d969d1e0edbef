"""Report the figures of a benchmark: print tables, and write a line of JSON, from which `results.py` makes a page.

A benchmark is one module. It answers one question, which is the first line of its docstring. The module calls `begin`,
which reads the command line and returns a `Bench`. The `Bench` prints tables and targets. At the end, it writes them to
the file that `--record` names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import common


@dataclass(frozen=True, kw_only=True)
class Table:
    """A markdown table. All columns except the first are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        rule = f"|---|{'---:|' * (len(self.columns) - 1)}"
        rows = [f"| {' | '.join(row)} |" for row in (self.columns, *self.rows)]
        return "\n".join([f"**{self.title}**", "", rows[0], rule, *rows[1:]]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure that may have a limit. The target is met if the median of its values is at most the limit.

    Attributes
    ----------
    what:
        The name of the figure. For a ratio, it names both ways: "this / that".
    values:
        One value for each repetition, in `unit`. The unit "x" stands for a ratio.
    at_most:
        The limit. None means that there is no limit, and the figure is only printed.
    """

    what: str
    values: list[float]
    at_most: float | None
    unit: str = "x"

    @property
    def is_met(self) -> bool:
        return self.at_most is None or common.median(self.values) <= self.at_most

    def row(self) -> list[str]:
        low, high = min(self.values), max(self.values)
        digits = 0 if self.unit == "MB" else 2
        limit = "none" if self.at_most is None else f"{self.at_most:g} {self.unit}"
        met = "" if self.at_most is None else "yes" if self.is_met else "**no**"
        found = f"{common.median(self.values):.{digits}f} {self.unit} ({low:.{digits}f}-{high:.{digits}f})"
        return [self.what, found, limit, met]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line in a plot, through the points `(at[i], values[i])`. `label` is the text beside the vertical axis."""

    title: str
    label: str
    at: list[float]
    values: list[float]


@dataclass(kw_only=True)
class Findings:
    """The figures of one benchmark."""

    name: str
    question: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


class Bench:
    """Collects and prints the figures of the benchmark that runs in this process.

    Attributes
    ----------
    quick:
        Whether to use fewer repetitions and less data.
    """

    def __init__(self, findings: Findings, *, quick: bool, repetitions: int | None, record: Path | None) -> None:
        self.quick = quick
        self._repetitions = repetitions
        self._record = record
        self._findings = findings

    def rounds(self, usual: int) -> int:
        """Return how often to repeat a run that is repeated `usual` times without options on the command line."""
        return self._repetitions or (max(2, usual // 3) if self.quick else usual)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title, columns=list(columns), rows=[list(row) for row in rows])
        self._findings.tables.append(table)
        print(f"\n{table.markdown()}", end="", flush=True)

    def target(self, what: str, values: Sequence[float], at_most: float | None = None, unit: str = "x") -> None:
        target = Target(what=what, values=list(values), at_most=at_most, unit=unit)
        self._findings.targets.append(target)
        met = "" if at_most is None else f", target {at_most:g}: {'met' if target.is_met else 'NOT MET'}"
        print(f"\n-> {what}: {target.row()[1]}{met}", flush=True)

    def line(self, title: str, label: str, at: Sequence[float], values: Sequence[float]) -> None:
        self._findings.lines.append(Line(title=title, label=label, at=list(at), values=list(values)))

    def end(self) -> None:
        """Write all figures to the file that `--record` names. If a benchmark fails before, nothing is written."""
        if self._record is not None:
            with self._record.open("a") as out:
                out.write(json.dumps(asdict(self._findings)) + "\n")


def begin(about: str | None) -> Bench:
    """Start the benchmark of the main module, with the options of the command line.

    `about` is the docstring of the main module.
    """
    # These two modules are imported here, so that workers start faster: workers also import the main module, and thus
    # this module, but never call `begin`.
    import argparse

    import __main__

    assert about is not None
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and less data")
    parser.add_argument("--repetitions", type=int, help="how often each way is run")
    parser.add_argument("--record", type=Path, help="a file that gets a line of JSON with what was found")
    found = parser.parse_args()
    question = about.strip().splitlines()[0]
    print(f"\n## {question}", flush=True)
    findings = Findings(name=Path(__main__.__file__ or "").stem, question=question)
    return Bench(findings, quick=found.quick, repetitions=found.repetitions, record=found.record)


def load(path: Path) -> list[Findings]:
    """Return the findings of all benchmarks that have written to the file at `path`."""
    found = []
    for line in path.read_text().splitlines():
        data: dict[str, Any] = json.loads(line)
        data["tables"] = [Table(**each) for each in data["tables"]]
        data["targets"] = [Target(**each) for each in data["targets"]]
        data["lines"] = [Line(**each) for each in data["lines"]]
        found.append(Findings(**data))
    return found
