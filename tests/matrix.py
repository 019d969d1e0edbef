"""Run the tests in other environments: with the oldest Rerun SDK, and with every other Python on this machine.

`python tests/matrix.py [pytest arguments]`. Each environment is new and lies beside the main one (`.venv-<name>`).
`python tests/matrix.py --oldest-pytest [pytest arguments]` uses only the oldest pytest that the plugin supports.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OLDEST_SDK = "rerun-sdk==0.39.0"
OLDEST_PYTEST = "pytest==8.4.*"
PYTHONS = ("3.12", "3.13", "3.14")


def interpreter(version: str) -> str | None:
    """Find a Python of that version, on the PATH or installed by pyenv."""
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in candidates:
        # A shim of pyenv exists but does not work if its version is not selected.
        tried = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=60, check=False)
        if tried.returncode == 0 and f"Python {version}." in tried.stdout:
            return str(candidate)
    return None


def run(name: str, python: str, *pins: str, arguments: list[str]) -> bool:
    folder = ROOT / f".venv-{name}"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True, timeout=600)
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True, timeout=600)
    subprocess.run([*pip, "--editable", ROOT, "--group", "test", *pins], check=True, timeout=1800, cwd=ROOT)
    print(f"=== {name} ({python}) {' '.join(pins)}", flush=True)
    tests = [folder / "bin" / "python", "-m", "pytest", "--quiet", *(arguments or ["-m", "not slow"])]
    return subprocess.run(tests, check=False, timeout=3600, cwd=ROOT).returncode == 0


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--oldest-pytest"]:
        sys.exit(not run("oldest-pytest", sys.executable, OLDEST_PYTEST, arguments=arguments[1:]))
    wanted: dict[str, tuple[str, ...]] = {"oldest-sdk": (sys.executable, OLDEST_SDK)}
    for version in PYTHONS:
        python = interpreter(version)
        if python is None:
            print(f"=== no Python {version} here", flush=True)
        elif f"{sys.version_info.major}.{sys.version_info.minor}" != version:
            wanted[f"py{version}"] = (python,)
    failed = [name for name, (python, *pins) in wanted.items() if not run(name, python, *pins, arguments=arguments)]
    if failed:
        sys.exit(f"failed in: {', '.join(failed)}")


if __name__ == "__main__":
    main()
