"""The SDK's own command line, `rerun rrd ...`, for what it does better than anybody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mpr.sdk import reader


def viewer_executable() -> str | None:
    """The native viewer: the program in the SDK's package, else one on the PATH; None where there is none.

    The script `rerun` in the SDK's package would be a process more, which leaves the viewer behind when it is killed.
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
    """Let the SDK's own `rerun rrd merge` write the file at `path` anew to `target`, skipping what it cannot read.

    Raises `OSError` where it does not manage.
    """
    with target.open("wb") as out:
        ran = _rerun_rrd("merge", "--continue-on-error", path, stdout=out)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {path}' fails: {_last_line(ran.stderr)}")


def merge(paths: list[Path], target: Path) -> None:
    """Let `rerun rrd merge` make one file of those at `paths`. Raises `OSError` where it does not manage."""
    ran = _rerun_rrd("merge", "--continue-on-error", *paths, "-o", target, stdout=subprocess.DEVNULL)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {' '.join(map(str, paths))}' fails: {_last_line(ran.stderr)}")


def optimize(path: Path, target: Path) -> None:
    """Let `rerun rrd optimize` write the file at `path` anew to `target`. Raises `OSError` where it does not manage."""
    ran = _rerun_rrd("optimize", path, "-o", target, stdout=subprocess.DEVNULL)
    if ran.returncode:
        raise OSError(f"'rerun rrd optimize {path}' fails: {_last_line(ran.stderr)}")


def routed(streams: bytes) -> bytes:
    """What `rerun rrd route` makes of `streams`, one behind the other: one stream. Raises `OSError`."""
    ran = subprocess.run([*_program(), "rrd", "route"], input=streams, capture_output=True, timeout=600, check=False)
    if ran.returncode:
        raise OSError(f"'rerun rrd route' fails: {_last_line(ran.stderr.decode(errors='replace'))}")
    return ran.stdout


def verify(path: Path) -> str | None:
    """What `rerun rrd verify`, which reads all of it, has against the file at `path`; None where nothing."""
    ran = _rerun_rrd("verify", path, stdout=subprocess.DEVNULL)
    return _last_line(ran.stderr) if ran.returncode else None


def refusal(path: Path) -> str | None:
    """As `reader.refusal`, in a process of its own: the reader takes some 3 kB of memory for each chunk of a file."""
    code = (
        "import sys; from pathlib import Path; from mpr.sdk import reader; "
        "print(reader.refusal(Path(sys.argv[1])) or '')"
    )
    command = [sys.executable, "-c", code, str(path)]
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600, check=True)
    except (OSError, subprocess.SubprocessError):
        # That process could not look, which says nothing of the file.
        return reader.refusal(path)
    return ran.stdout.decode(errors="replace").strip() or None


def _program() -> list[str]:
    """How the command line is called: the program itself where it is found, for its script takes 0.4 s to start."""
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
