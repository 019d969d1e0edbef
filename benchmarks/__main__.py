"""Run every benchmark in a process of its own, and write the figures of all benchmarks to `benchmarks/results`.

Each benchmark has its own process, so that it inherits no threads, fork servers or memory of another benchmark. If a
benchmark fails, none of its figures are written, and its name is printed at the end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import report, results

NAMES = (
    "funnel",
    "log_calls",
    "parent",
    "scaling",
    "live",
    "latency",
    "small_tasks",
    "start",
    "tasks",
    "pools",
    "memory",
    "pytest_plugin",
)
# These run only if the command line names them. `way_out` does not measure mpr: it compares ways by which encoded bytes
# can leave a worker. `engines` needs Ray and Dask, which have an environment of their own.
_MORE = ("way_out", "engines")
_FOLDER = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"of {', '.join(NAMES + _MORE)}; by default all but {', '.join(_MORE)}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and less data")
    parser.add_argument("--repetitions", type=int, help="how often each way is run")
    parser.add_argument("--out", type=Path, help="where to write; benchmarks/results, or results/quick, by default")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {*NAMES, *_MORE}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    folder: Path = asked.out or (_FOLDER / "quick" if asked.quick else _FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / results.RECORD
    record.unlink(missing_ok=True)
    arguments = ["--record", str(record)]
    if asked.quick:
        arguments.append("--quick")
    if asked.repetitions:
        arguments += ["--repetitions", str(asked.repetitions)]
    failed, begin = [], time.perf_counter()
    for name in asked.names or NAMES:
        since = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode:
            failed.append(name)
        print(f"\n({name}: {time.perf_counter() - since:.0f} s)", flush=True)
    if record.exists():
        results.write(folder, report.load(record), time.perf_counter() - begin, asked.quick)
        print(f"written to {folder}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
