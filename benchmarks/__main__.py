"""Run every benchmark, each in a process of its own: none inherits threads, fork servers or memory of another."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import common

NAMES = ("start", "tasks", "pools", "way_out", "funnel", "live", "memory", "pytest_plugin")


def main() -> int:
    common.options(__doc__)
    failed = [
        name
        for name in NAMES
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
