"""Compare two runs of the benchmarks: `python -m benchmarks.compare before after`.

`before` and `after` are folders that `python -m benchmarks --out` has written. Only targets are compared, which are the
figures that may have a limit. Most of them are ratios to a program that does not use mpr. If the ranges of both runs
overlap, the figures show no difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import common, report, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    asked = parser.parse_args()
    before, after = (_targets(folder) for folder in (asked.before, asked.after))
    rows = []
    for what in (what for what in after if what in before):
        old, new = before[what].values, after[what].values
        change = common.median(new) / common.median(old)
        apart = max(new) < min(old) or max(old) < min(new)
        rows.append([what, common.spread(old), common.spread(new), f"{change:.2f}", "yes" if apart else ""])
    columns = ["what", "before", "after", "after / before", "ranges apart"]
    print(report.Table(title="Medians and ranges", columns=columns, rows=rows).markdown())


def _targets(folder: Path) -> dict[str, report.Target]:
    findings = report.load(folder / results.RECORD)
    return {target.what: target for each in findings for target in each.targets}


if __name__ == "__main__":
    main()
