"""Runs an unchanged command, and lets its Python processes log into one recording.

Covers: the environment, the start, the signals and the exit status of the command.
Does not cover: the code of mpr in the processes of the command (`startup.py`), texts about the result (`summary.py`).

The command gets two environment variables, which its processes inherit. `MPR_RECORDING` says how to join the recording.
PYTHONPATH begins with a folder made for the run. At its start, Python imports the `sitecustomize.py` in this folder,
which calls `startup.py`. With `-I`, `-E` or `-S`, Python does not import this file, and the process does not join.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mpr.errors import ConfigError, MprError
from mpr.recording.shared_recording import SharedRecording
from mpr.run.summary import Summary
from mpr.sinks.base import Sink

_SITECUSTOMIZE = '''\
"""Of `mpr run`, for this run only. It stands before a `sitecustomize` of the user's own, and imports that."""
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [each for each in sys.path if os.path.abspath(each) != here]
try:
    from mpr.run import startup
except ImportError as error:
    sys.stderr.write(f"mpr run: {sys.executable} cannot import mpr ({error}): what it logs is not recorded\\n")
else:
    startup.begin()
ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ModuleNotFoundError as error:
    if error.name != "sitecustomize":
        raise
    # Python itself looks for it once more.
    sys.modules["sitecustomize"] = ours
'''

# Signals that are forwarded to the command. The system or a user sends them to `mpr run`, but means the command.
_FORWARDED = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
}

# The longest time (seconds) between two checks whether the command has ended. These checks need no signal, because the
# signal at the end of the command may be missed.
_LOOK_SECS = 5.0


def application_id_of(command: Sequence[str]) -> str:
    """Return an application id, made from the name of the script in `command`: the first part that ends with `.py`.

    If there is no script, the id is made from the name of the program. The name loses its folder and its suffix, and
    other characters than ASCII letters, digits, `_` and `-` become `_`. The id has at most 180 characters. If the name
    is empty, the id is "mpr".
    """
    scripts = [part for part in command if part.endswith(".py")]
    stem = Path(scripts[0] if scripts else command[0]).stem
    return re.sub(r"[^A-Za-z0-9_\-]", "_", stem)[:180] or "mpr"


def run(command: Sequence[str], application_id: str | None, sinks: Sequence[Sink | str]) -> Summary:
    """Run `command` with one recording for its Python processes, and wait until the command has ended.

    Meanwhile, the signals in `_FORWARDED`, such as SIGTERM, are forwarded to the command. A signal from a terminal is
    not forwarded (see `_wait`). To forward signals, this function blocks them in the calling thread. So call it in a
    process without other threads, because another thread would receive the signals.

    Parameters
    ----------
    command:
        The program and its arguments.
    application_id:
        The application id, as in `rr.init`. None stands for the result of `application_id_of`.
    sinks:
        The sinks, as in `mpr.SharedRecording`. If the sequence is empty, they are chosen as with `sinks=None` there.

    Returns
    -------
    The exit status of the command, and the state of the recording. An `MprError` of the recording after the command has
    run is not raised, but is `Summary.failure`. If a signal in `_FORWARDED` other than SIGWINCH comes before the
    command has started, the command is not started, and the exit status is 128 plus the lowest number of such a
    signal.

    Raises
    ------
    ConfigError
        If the program cannot be started, or if the application id or a sink is not valid.
    MprError
        Any other error of the start of a `mpr.SharedRecording`, such as `SinkError` if a sink cannot be opened.
    """
    name = application_id_of(command) if application_id is None else application_id
    # Signals are blocked before other threads exist, so that only `_wait` gets them, and not one of those threads.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    status: int | None = None
    failure: MprError | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="mpr-run-") as folder:
            recording = SharedRecording(name, sinks=list(sinks) or None)
            try:
                with recording:
                    came = signal.sigpending() & (_FORWARDED - {signal.SIGWINCH})
                    status = _taken(came) if came else _wait(_start(command, recording, Path(folder), before))
                    # Signals must be able to interrupt the end of the recording, because a slow sink delays it.
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
            except MprError as error:
                if status is None:
                    raise
                failure = error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    stats = recording.stats()
    return Summary(
        status=status,
        failure=failure,
        processes=stats.processes,
        torn_processes=stats.torn_processes,
        paths=recording.paths,
        live_sinks=stats.live_sinks,
    )


def _taken(came: set[signal.Signals]) -> int:
    """Take the pending signals `came`, at least one, which would end this process later. Return the exit status.

    The exit status is 128 plus the lowest number of a signal in `came`.
    """
    for number in came:
        signal.sigwait({number})
    return 128 + min(came)


def _start(command: Sequence[str], recording: SharedRecording, folder: Path, mask: Iterable[int]) -> int:
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    environ = recording.environ()
    environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [environ.get("PYTHONPATH")])])
    try:
        pid: int = os.posix_spawnp(command[0], list(command), environ, setsigmask=mask)
    except OSError as error:
        raise ConfigError(f"cannot run {command[0]!r}: {error.strerror}") from error
    return pid


def _wait(pid: int) -> int:
    """Wait until the process with the id `pid` has ended, and return its exit status. Forward signals to it meanwhile.

    A signal without a sender (see `_next_signal`) is not forwarded, because a terminal sends its signals to that
    process, too. If a signal has ended the process, the status is 128 plus the number of the signal, as in a shell.
    """
    while True:
        number, sender = _next_signal()
        if number and number != signal.SIGCHLD:
            # A signal without a sender is from the terminal, which sends it to the whole group. So the command has
            # received the signal already.
            if sender:
                os.kill(pid, number)
            continue
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _next_signal() -> tuple[int, int]:
    """Wait for the next signal that is forwarded, or SIGCHLD, and return (number of the signal, sender).

    On Linux, the sender is 1 if a process has sent the signal, and 0 if the kernel has, for example for a terminal. If
    no signal comes for `_LOOK_SECS` seconds, the function returns (0, 0). On other systems, the sender is 0 for SIGINT
    and SIGQUIT, and 1 for any other signal. There, the function waits without a limit.
    """
    waited_for = _FORWARDED | {signal.SIGCHLD}
    if sys.platform == "linux":
        info = signal.sigtimedwait(waited_for, _LOOK_SECS)
        # A process has sent it if the code is not positive (man 2 sigaction), also from outside of this PID namespace.
        return (0, 0) if info is None else (info.si_signo, int(info.si_code <= 0))
    number = signal.sigwait(waited_for)
    # This system does not report the sender. Signals that a terminal can send count as the system's, so that the
    # command receives Ctrl-C only once.
    return number, 0 if number in (signal.SIGINT, signal.SIGQUIT) else 1
