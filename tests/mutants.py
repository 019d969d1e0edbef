"""Make the changes of `mutants.toml` one by one in a copy of the tree, and see which of them the tests notice.

`python tests/mutants.py [words]` makes the changes whose number, file or reason has one of the words (default: all).
The tests that are named for a change run in the copy, two changes at a time. A run that takes too long counts as
noticed, because a test that hangs fails. Ends with status 1 if fewer than 85 % are noticed, or if a place is not found.

The list was made by hand, because only a person knows which lines are hard. Tools such as `mutmut` and `cosmic-ray`
change every operator of every line. Most of these changes no user would notice, and each needs tests that start
processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_name("mutants.toml")
_AT_ONCE = int(os.environ.get("MPR_MUTANTS_AT_ONCE", "2"))
# The longest time for the tests of one change (seconds). Unchanged, the slowest take a tenth of it.
_LIMIT_SECS = 240.0
_ALL_TESTS_SECS = 3600.0
_GOAL = 0.85


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: `old` becomes `new` in `file`, because of `why`, and `tests` should notice it."""

    number: int
    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.number:3} {self.file}: {self.why}"

    def changed(self, text: str) -> str:
        """Return `text` with the change. Raises `ValueError` if the old text is not in `text` exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: found {count} times: {self.old!r}")
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """Return the changes of the list, numbered from 1."""
    found = tomllib.loads(LIST.read_text())["mutant"]
    return [
        Mutant(number=number, **{**each, "tests": tuple(f"tests/{test}" for test in each["tests"])})
        for number, each in enumerate(found, 1)
    ]


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _test(folder: Path, tests: tuple[str, ...], limit_secs: float = _LIMIT_SECS) -> str:
    """Run `tests` in the tree `folder`. Returns an empty text if all pass, else what has failed first."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as temporary:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *tests]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A group of its own, so that everything that hangs can be ended.
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit_secs)
        except subprocess.TimeoutExpired:
            said = f"FAILED: takes more than {limit_secs:.0f} s"
        finally:
            _end_group(process)
    if process.returncode == 0:
        return ""
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else f"status {process.returncode}: {said[-500:]}"


def _end_group(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _try(mutant: Mutant, folder: Path) -> str:
    """Make the change in the tree `folder`, run its tests, and undo it. Returns what has failed first."""
    path = folder / mutant.file
    original = path.read_text()
    try:
        path.write_text(mutant.changed(original))
        return _test(folder, mutant.tests)
    finally:
        path.write_text(original)


def main() -> int:
    words = sys.argv[1:]
    chosen = [each for each in mutants() if not words or any(word in each.name for word in words)]
    for each in chosen:
        each.changed((ROOT / each.file).read_text())
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        folders = [Path(place, str(number)) for number in range(_AT_ONCE)]
        for folder in folders:
            folder.mkdir()
            _copy(folder)
        imported = subprocess.run(
            [sys.executable, "-c", "import mpr; print(mpr.__file__)"],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(folders[0])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert imported.stdout.startswith(str(folders[0])), f"the tests would use {imported.stdout}"
        every = tuple(sorted({test for each in chosen for test in each.tests}))
        if failed := _test(folders[0], every, _ALL_TESTS_SECS):
            print(f"the tests fail without any change: {failed}")
            return 1
        return _report(chosen, folders)


def _report(chosen: list[Mutant], folders: list[Path]) -> int:
    free = list(folders)

    def one(mutant: Mutant) -> bool:
        folder = free.pop()
        began = time.monotonic()
        try:
            failed = _try(mutant, folder)
        finally:
            free.append(folder)
        print(f"{'noticed    ' if failed else 'NOT NOTICED'} {mutant.name}", flush=True)
        print(f"            {time.monotonic() - began:.0f} s {failed}", flush=True)
        return bool(failed)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        noticed = sum(threads.map(one, chosen))
    print(f"{noticed} of {len(chosen)} changes are noticed")
    return 0 if noticed >= _GOAL * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
