"""Runs the SDK's command line (`rerun rrd ...`), and reads files with the SDK, in processes of their own.

If the SDK crashes on a broken file, only such a process ends. This module also finds the native viewer, because the
program `rerun` is both the viewer and the SDK's command line.

Covers: starting such a process, its time limit, and the reason why it failed.
Does not cover: reading files in this process (`reader.py`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# The longest times in seconds: for a program of the SDK, and for one check in another process.
_PROGRAM_SECS = 3600.0
_REFUSAL_SECS = 600.0
# The number of bytes that are kept of what a program writes to its standard error.
_KEPT_BYTES = 4096
_READ_ALL = """
import json, sys
from pathlib import Path
from mpr.sdk import reader
for path in sys.stdin.buffer.read().decode(errors="surrogateescape").split("\\0"):
    print(json.dumps(reader.unreadable(Path(path))), flush=True)
"""


def viewer_executable() -> str | None:
    """Return the path of the native viewer: in the SDK's package, else on the PATH; None if there is no viewer.

    The program in the package is preferred, because `rerun` on the PATH may be a script. If such a script is killed,
    the viewer that it has started survives.
    """
    import importlib.util
    import shutil

    package = importlib.util.find_spec("rerun_cli")
    if package is not None and package.origin is not None:
        program = Path(package.origin).with_name("rerun")
        if program.is_file():
            return str(program)
    return shutil.which("rerun")


def rewrite(path: Path, target: int) -> None:
    """Read the file at `path` with `rerun rrd merge`, and write all data that can be read to the descriptor `target`.

    Raises `OSError` if the program cannot be started, fails, or does not end within an hour.
    """
    ran = _rerun_rrd("merge", "--continue-on-error", path, stdout=target)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {path}' fails: {ran.reason}")


def merge(paths: list[Path], target: Path) -> None:
    """Merge the files at `paths` into the file `target` with `rerun rrd merge`.

    Data that the SDK cannot read is left out. Raises `OSError` if the program cannot be started, fails, or does not end
    within an hour.
    """
    ran = _rerun_rrd("merge", "--continue-on-error", *paths, "-o", target)
    if ran.returncode:
        raise OSError(f"'rerun rrd merge {' '.join(map(str, paths))}' fails: {ran.reason}")


def optimize(path: Path, target: int) -> None:
    """Read the file at `path` with `rerun rrd optimize`, which merges small chunks, and write the result to `target`.

    `target` is a file descriptor. Raises `OSError` if the program cannot be started, fails, or does not end within an
    hour.
    """
    ran = _rerun_rrd("optimize", path, stdout=target)
    if ran.returncode:
        raise OSError(f"'rerun rrd optimize {path}' fails: {ran.reason}")


def routed(streams: bytes) -> bytes:
    """Join `streams`, which are several streams one behind the other, with `rerun rrd route`. Return the joined stream.

    Raises `OSError` if the program cannot be started, fails, or does not end within 10 minutes.
    """
    ran = _run([*_program(), "rrd", "route"], _REFUSAL_SECS, data=streams)
    if ran.returncode:
        raise OSError(f"'rerun rrd route' fails: {ran.reason}")
    return ran.stdout


def verify(path: Path) -> str | None:
    """Return the error that `rerun rrd verify` finds in the file at `path`, as text; None if there is no error.

    If the program crashes, returns a sentence about the crash. Raises `OSError` if the program cannot be started, or
    does not end within an hour.
    """
    ran = _rerun_rrd("verify", path)
    return ran.reason if ran.returncode else None


def refusal(path: Path) -> str | None:
    """Return the error that the SDK's reader raises for the manifest of the file at `path`; None if there is none.

    The error is a text. The file is read in another process, because the reader may crash. If the other process
    crashes, returns a sentence about the crash. Raises `OSError` if the process cannot be started, fails, or does not
    end within 10 minutes.
    """
    return _asked(f"print(reader.refusal(Path({str(path)!r})) or '')")


def unreadable(paths: Sequence[Path]) -> dict[Path, str]:
    """Read the files at `paths` in another process. Return a text for each path whose file the SDK cannot read.

    The text is the error of the SDK, or a sentence about a crash. If the process crashes, the file that it was reading
    counts as unreadable, and a new process reads the rest. Raises `OSError` if a process cannot be started, fails, or
    does not end within 10 minutes.
    """
    found: dict[Path, str] = {}
    left = list(paths)
    while left:
        ran = run_python(_READ_ALL, data="\0".join(map(str, left)).encode(errors="surrogateescape"))
        if ran.returncode > 0:
            raise OSError(f"another Python process fails: {ran.reason}")
        # The process prints a line for each file that it has read: the reason, or null. If it crashes, the line of the
        # file that it was reading is missing.
        read = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith((b'"', b"null"))]
        found |= {path: refused for path, refused in zip(left, read, strict=False) if refused is not None}
        if len(read) < len(left):
            found[left[len(read)]] = ran.reason
        left = left[len(read) + 1 :]
    return found


def _asked(question: str) -> str | None:
    """Run the Python code `question` in a new process, and return the text that it prints; None if it prints nothing.

    If the process crashes, returns a sentence about the crash. Raises `OSError` if the process cannot be started,
    fails, or does not end within 10 minutes.
    """
    ran = run_python(f"from pathlib import Path; from mpr.sdk import reader; {question}")
    if ran.returncode > 0:
        raise OSError(f"another Python process fails: {ran.reason}")
    if ran.returncode:
        return ran.reason
    return ran.stdout.decode(errors="replace").strip() or None


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The result of a program that has ended.

    Attributes
    ----------
    returncode:
        The exit code of the program; negative if a signal has ended the program.
    stdout:
        The bytes that the program wrote to its standard output. Empty if the output went to a file.
    last_line:
        The last line that the program wrote to its standard error; empty if there is none.
    """

    returncode: int
    stdout: bytes
    last_line: str

    @property
    def reason(self) -> str:
        """The reason why the program failed, as a text. Read this only if `returncode` is not 0."""
        if self.returncode < 0:
            return f"the Rerun SDK crashed on it ({signal.Signals(-self.returncode).name})"
        return self.last_line or "it does not say why"


def run_python(code: str, *arguments: str, data: bytes = b"", pass_fds: Sequence[int] = ()) -> Ran:
    """Run `code` in a new Python process, wait until it has ended, and return the result.

    `arguments` become its `sys.argv[1:]`, `data` is its standard input, and `pass_fds` are file descriptors that it
    inherits. Raises `OSError` if the process cannot be started, or does not end within 10 minutes.
    """
    # `sys.path` goes along, because mpr may be found by an entry that only this process has. A crash leaves no
    # core file, because it is expected.
    code = (
        f"import resource, sys; sys.path[:] = {sys.path!r}\n"
        f"resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n{code}"
    )
    return _run([sys.executable, "-c", code, *arguments], _REFUSAL_SECS, data=data, pass_fds=pass_fds)


def _program() -> list[str]:
    """Return the command that starts the SDK's command line: the native viewer if it is found, else `python -m rerun`.

    The native viewer (see `viewer_executable`) is preferred, because it starts faster.
    """
    program = viewer_executable()
    return [sys.executable, "-m", "rerun"] if program is None else [program]


def _rerun_rrd(*arguments: str | Path, stdout: int = subprocess.DEVNULL) -> Ran:
    return _run([*_program(), "rrd", *map(str, arguments)], _PROGRAM_SECS, stdout=stdout)


def _run(
    command: Sequence[str],
    timeout_secs: float,
    *,
    data: bytes = b"",
    stdout: int = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> Ran:
    """Run `command`, wait until it has ended, and return the result.

    `data` is the standard input of the program. `stdout` is the file descriptor for its output, or `subprocess.PIPE` if
    the output is returned. The program inherits `pass_fds`. Of its standard error, only the last 4096 bytes are kept.
    Raises `OSError` if the program cannot be started. If it does not end within `timeout_secs` seconds, kills it, and
    raises `OSError`.
    """
    with contextlib.ExitStack() as stack:
        stdin: int | IO[bytes] = subprocess.DEVNULL
        if data:
            # Not a pipe, because the program may end without reading all of it.
            stdin = stack.enter_context(tempfile.TemporaryFile())
            stdin.write(data)
            stdin.seek(0)
        # Without a backtrace, because it takes longer than the start of the process, and nobody reads it.
        env = {**os.environ, "RUST_BACKTRACE": "0"}
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, pass_fds=pass_fds, env=env
        )
    with process:
        end: list[bytes] = [b""]
        reader = threading.Thread(target=_keep_end, args=(process.stderr, end), daemon=True)
        reader.start()
        timer = threading.Timer(timeout_secs, process.kill)
        timer.daemon = True
        timer.start()
        try:
            printed = b"" if process.stdout is None else process.stdout.read()
            reader.join()
            returncode = process.wait()
            is_late = not timer.is_alive()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if is_late and returncode == -signal.SIGKILL:
        raise OSError(errno.ETIMEDOUT, f"{command[0]} has not ended in {timeout_secs:.0f} s")
    return Ran(returncode=returncode, stdout=printed, last_line=_last_line(end[0].decode(errors="replace")))


def _keep_end(stream: IO[bytes], end: list[bytes]) -> None:
    # Reading raises these errors if the stream was closed, because the wait for the program was interrupted.
    with contextlib.suppress(OSError, ValueError):
        while piece := os.read(stream.fileno(), 64 * 1024):
            end[0] = (end[0] + piece)[-_KEPT_BYTES:]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
