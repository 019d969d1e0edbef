"""Runs the SDK's own programs: the viewer, and the command line `rerun rrd ...`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mpr.sdk import reader


def viewer_executable() -> str | None:
    """Return the path of the native viewer: in the SDK's package, else on the PATH; None if there is no viewer.

    This is not the path of the script `rerun` in the SDK's package. That script starts the viewer as another process.
    If the script is killed, the viewer goes on.
    """
    import importlib.util
    import shutil

    package = importlib.util.find_spec("rerun_cli")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("rerun")
        if program.is_file():
            return str(program)
    return shutil.which("rerun")


def rewrite(path: Path, target: Path) -> None:
    """Rewrite the file at `path` to `target` with `rerun rrd merge`, which leaves out data that it cannot read.

    Raises `OSError` if the program fails.
    """
    with target.open("wb") as out:
        ran = _rerun_rrd("merge", "--continue-on-error", path, stdout=out)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {path}' fails: {_last_line(ran.stderr)}")


def merge(paths: list[Path], target: Path) -> None:
    """Merge the files at `paths` into `target` with `rerun rrd merge`. Raises `OSError` if the program fails."""
    ran = _rerun_rrd("merge", "--continue-on-error", *paths, "-o", target, stdout=subprocess.DEVNULL)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {' '.join(map(str, paths))}' fails: {_last_line(ran.stderr)}")


def optimize(path: Path, target: Path) -> None:
    """Rewrite the file at `path` to `target` with `rerun rrd optimize`. Raises `OSError` if the program fails."""
    ran = _rerun_rrd("optimize", path, "-o", target, stdout=subprocess.DEVNULL)
    if ran.returncode:
        raise OSError(f"'rerun rrd optimize {path}' fails: {_last_line(ran.stderr)}")


def routed(streams: bytes) -> bytes:
    """Return one stream, which `rerun rrd route` makes of the concatenated `streams`.

    Raises `OSError` if the program fails.
    """
    ran = subprocess.run([*_program(), "rrd", "route"], input=streams, capture_output=True, timeout=600, check=False)
    if ran.returncode:
        raise OSError(f"'rerun rrd route' fails: {_last_line(ran.stderr.decode(errors='replace'))}")
    return ran.stdout


def verify(path: Path) -> str | None:
    """Return the error that `rerun rrd verify` finds in the file at `path`; None if there is no error."""
    ran = _rerun_rrd("verify", path, stdout=subprocess.DEVNULL)
    return _last_line(ran.stderr) if ran.returncode else None


def refusal(path: Path) -> str | None:
    """Check the file at `path` as `reader.refusal` does, but in another process.

    The SDK's reader takes about 3 kB of memory for each chunk. This memory is free again when the process has ended.
    """
    code = (
        "import sys; from pathlib import Path; from mpr.sdk import reader; "
        "print(reader.refusal(Path(sys.argv[1])) or '')"
    )
    command = [sys.executable, "-c", code, str(path)]
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600, check=True)
    except (OSError, subprocess.SubprocessError):
        # The process failed, perhaps not because of the file, so this process reads the file.
        return reader.refusal(path)
    return ran.stdout.decode(errors="replace").strip() or None


def _program() -> list[str]:
    """Return the command that starts the SDK's command line: the native program if it is found, else the script.

    The script takes 0.4 s longer to start.
    """
    program = viewer_executable()
    return [sys.executable, "-m", "rerun"] if program is None else [program]


def _rerun_rrd(*arguments: str | Path, stdout: Any) -> subprocess.CompletedProcess[str]:
    command = [*_program(), "rrd", *map(str, arguments)]
    try:
        return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=3600, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{error}") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1]
