"""Get those of CPython's tests that this interpreter lacks, from Debian's package for the same Python.

`python tests/conformance/fetch.py`; `make test` calls it. If it does not succeed, the tests that need them say so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = f"3.{sys.version_info.minor}"
MODULES = ("_test_multiprocessing", "test_multiprocessing_main_handling", "test_concurrent_futures")
#: Git ignores this folder.
FOLDER = Path(__file__).parents[2] / ".cpython-tests" / VERSION


def missing() -> list[str]:
    return [name for name in MODULES if importlib.util.find_spec(f"test.{name}") is None]


def fetch(names: list[str]) -> None:
    package = f"libpython{VERSION}-testsuite"
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
        if subprocess.run(download, cwd=folder, check=False, timeout=300).returncode and os.geteuid() == 0:
            # A new container has no lists of packages.
            subprocess.run(["apt-get", "-qq", "update"], check=True, timeout=300)
            subprocess.run(download, cwd=folder, check=True, timeout=300)
        (archive,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg", "-x", archive, folder], check=True, timeout=300)
        FOLDER.mkdir(parents=True, exist_ok=True)
        for found in (Path(folder) / "usr" / "lib" / f"python{VERSION}" / "test").iterdir():
            if found.stem in names:
                copy = shutil.copytree if found.is_dir() else shutil.copyfile
                copy(found, FOLDER / found.name)


def main() -> None:
    names = [] if FOLDER.exists() else missing()
    if names:
        try:
            fetch(names)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            print(f"CPython's {', '.join(names)} cannot be had: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
