"""`mpr run`: an unchanged script whose processes all log into one recording."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rerun as rr

from mpr.run.command import application_id_of
from tests import support, viewers

_SCRIPT = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

import rerun as rr


def as_in_the_example(number):
    rr.init("my_app", spawn=True)
    log(number)


def log(number):
    rr.set_time("step", sequence=number)
    rr.log("n", rr.Scalars(float(number)))


if __name__ == "__main__":
    log(0)
    rr.init("my_app", spawn=True)
    rr.save(sys.argv[1])
    log(1)
    method = sys.argv[2]
    context = multiprocessing.get_context(method)
    child = context.Process(target=as_in_the_example, args=(2,))
    child.start()
    child.join()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(log, range(3, 6)))
    with context.Pool(2) as pool:
        pool.map(log, range(6, 9))
        pool.close()
        pool.join()
    source = "import rerun as rr; rr.init('other'); rr.log('n', rr.Scalars(9.0))"
    subprocess.run([sys.executable, "-c", source], check=True)
    if os.fork() == 0:
        log(10)
        os._exit(0)
    os.wait()
    rr.disconnect()
    log(11)
    print(rr.get_application_id(), sys.argv)
    sys.exit(7)
"""


def _mpr_run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpr", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.rrd"


def _write(folder: Path, source: str, name: str = "script.py") -> Path:
    script = folder / name
    script.write_text(source)
    return script


def test_every_process_of_a_script_is_in_one_recording(start_method: str, path: Path, tmp_path: Path) -> None:
    script = _write(tmp_path, _SCRIPT)
    never = tmp_path / "never.rrd"
    ran = _mpr_run("--save", path, "--", sys.executable, script, never, start_method, "--save", "its own")
    assert ran.returncode == 7, ran.stderr
    # The script has got all of its own arguments.
    assert ran.stdout == f"script {[str(script), str(never), start_method, '--save', 'its own']}\n"
    assert "rr.save() under 'mpr run' does not choose where the rows go" in ran.stderr
    assert "Error" not in ran.stderr
    support.check_file(path)
    assert support.numbers(path) == Counter(range(12))
    assert not never.exists()
    (entry,) = rr.chunk.RrdReader(path).recordings()
    assert entry.application_id == "script"


_MUCH = """
import numpy as np, rerun as rr
from mpr.producer import log_counters, outbox_writer

# Otherwise this takes 256 MB.
outbox_writer.OUTBOX_ROLL_BYTES = log_counters.CHECK_EVERY_BYTES = 1_000_000
for number in range(20):
    rr.log("noise", rr.Tensor(np.random.default_rng(number).integers(0, 255, 400_000, np.uint8)))
    rr.log("n", rr.Scalars(float(number)))
    if number == 10:
        rr.disconnect()
"""


def test_a_script_that_logs_much(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("--save", path, sys.executable, _write(tmp_path, _MUCH))
    assert ran.returncode == 0, ran.stderr
    support.check_file(path)
    assert support.numbers(path) == Counter(range(20))


_LOOKS_FIRST = """
import importlib.util

assert importlib.util.find_spec("rerun").loader.is_package("rerun")
assert importlib.util.find_spec("rerun") is not None
import rerun as rr
rr.init("app")
rr.log("n", rr.Scalars(1.0))
"""


def test_a_script_that_first_looks_whether_rerun_is_installed(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("--save", path, sys.executable, _write(tmp_path, _LOOKS_FIRST))
    assert ran.returncode == 0, ran.stderr
    assert support.numbers(path) == {1: 1}


def test_nothing_stays_installed(path: Path, tmp_path: Path) -> None:
    script = _write(tmp_path, "import os; print(os.environ['PYTHONPATH'].split(os.pathsep)[0])")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    ran = _mpr_run("--save", path, sys.executable, script, env={**os.environ, "TMPDIR": str(temporary)})
    folder = Path(ran.stdout.strip())
    assert folder.name.startswith("mpr-run-")
    assert not folder.exists()
    assert not list(temporary.iterdir())


def test_a_process_that_does_not_use_rerun_pays_nothing(path: Path, tmp_path: Path) -> None:
    source = "import sys; print([name for name in ('rerun', 'zmq', 'mpr.joining', 'numpy') if name in sys.modules])"
    ran = _mpr_run("--quiet", "--save", path, sys.executable, _write(tmp_path, source))
    assert (ran.stdout, ran.stderr, ran.returncode) == ("[]\n", "", 0)
    # A program that is not Python runs as well.
    assert _mpr_run("--save", path, "sh", "-c", "exit 3").returncode == 3


def test_the_users_own_sitecustomize_is_imported_too(path: Path, tmp_path: Path) -> None:
    _write(tmp_path, "print('mine')", "sitecustomize.py")
    script = _write(tmp_path, "import rerun as rr; rr.log('n', rr.Scalars(1.0))")
    pythonpath = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = _mpr_run("--save", path, sys.executable, script, env={**os.environ, "PYTHONPATH": pythonpath})
    # It is imported once for mpr itself, and once for the script.
    assert ran.stdout == "mine\nmine\n", ran.stderr
    assert support.numbers(path) == Counter([1])


_WAITS = """
import signal, sys, time
from pathlib import Path
import rerun as rr

def stop(number, frame):
    rr.log("n", rr.Scalars(2.0))
    sys.exit(40 + number)

if len(sys.argv) > 2:
    signal.signal(getattr(signal, sys.argv[2]), stop)
rr.log("n", rr.Scalars(1.0))
rr.get_global_data_recording().flush()
Path(sys.argv[1]).touch()
time.sleep(1000)
"""


@pytest.mark.parametrize(
    ("name", "handled", "status"),
    [("SIGTERM", True, 55), ("SIGINT", True, 42), ("SIGUSR1", True, 50), ("SIGKILL", False, 137)],
)
def test_signals_reach_the_script(path: Path, tmp_path: Path, name: str, handled: bool, status: int) -> None:
    script, started = _write(tmp_path, _WAITS), tmp_path / "started"
    command = [sys.executable, "-m", "mpr", "run", "--save", path, "--", sys.executable, script, started]
    running = subprocess.Popen([*command, *([name] if handled else [])])
    support.wait_for(started.exists, 60)
    if handled:
        running.send_signal(getattr(signal, name))
    else:
        (child,) = (each for each in support.children_of(running.pid) if str(script) in each.cmdline())
        child.kill()
    assert running.wait(60) == status
    support.check_file(path)
    assert support.numbers(path) == (Counter([1, 2]) if handled else Counter([1]))


def test_a_command_that_cannot_be_run_is_an_error(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("--save", path, "no-such-program-here")
    assert (ran.returncode, ran.stderr) == (1, "Error: cannot run 'no-such-program-here': No such file or directory\n")
    (tmp_path / "file").write_text("")
    ran = _mpr_run("--save", tmp_path / "file" / "run.rrd", "true")
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: ")
    assert "Traceback" not in ran.stderr
    assert _mpr_run("--save", path).returncode == 2
    assert "application id" in _mpr_run("--save", path, "--application-id", "a/b", "true").stderr


def test_the_application_id_is_the_name_of_the_script() -> None:
    assert application_id_of(["python", "-u", "some/where/my script.py", "x"]) == "my_script"
    assert application_id_of(["/bin/some.tool"]) == "some"


def test_without_a_sink_a_new_file_is_made_here(tmp_path: Path) -> None:
    ran = _mpr_run(sys.executable, "-c", "import rerun as rr; rr.log('n', rr.Scalars(1.0))", cwd=tmp_path)
    (found,) = tmp_path.glob("python*.rrd")
    assert str(found) in ran.stderr
    assert support.numbers(found) == Counter([1])


_POOL = """
import multiprocessing, sys

def log(number):
    import rerun as rr
    rr.log("n", rr.Scalars(float(number)))
    return number

if __name__ == "__main__":
    # Leaving the block kills the workers at once.
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(sum(pool.map(log, range(20), chunksize=1)))
    with multiprocessing.pool.ThreadPool(2) as pool:
        pool.map(log, range(20, 25))
"""


def test_a_pool_that_is_killed_at_its_end_loses_nothing(start_method: str, path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("-q", "--save", path, sys.executable, _write(tmp_path, _POOL), start_method)
    # Nothing is printed, because nothing was lost.
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "190\n", "")
    support.check_file(path)
    assert support.numbers(path) == Counter(range(25))


_AGAIN = """
import os, sys
import rerun as rr

rr.log("n", rr.Scalars(float(len(sys.argv))))
if len(sys.argv) < 3:
    try:
        os.execv("/no/such/program", ["program"])
    except OSError:
        rr.log("n", rr.Scalars(10.0))
    os.execlp(sys.executable, sys.executable, *sys.argv, "again")
"""


def test_a_script_that_becomes_another_program(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("--save", path, sys.executable, _write(tmp_path, _AGAIN), "first")
    assert ran.returncode == 0, ran.stderr
    support.check_file(path)
    assert support.numbers(path) == Counter([2, 10, 3])
    assert "mpr run: 1 process has logged to Rerun\n" in ran.stderr


# --- what it says at the end --------------------------------------------------------------------------------------

_TWO = """
import subprocess, sys
import rerun as rr

rr.send_columns("n", [rr.TimeColumn("step", sequence=range(1500))], rr.Scalars.columns(scalars=range(1500)))
rr.send_property("note", rr.AnyValues(said="no row of the user's"))
own = rr.RecordingStream("own", recording_id="second")
own.log("n", rr.Scalars(1.0))
subprocess.run([sys.executable, "-c", "import rerun as rr; rr.log('n', rr.Scalars(1.0))"], check=True)
sys.exit(3)
"""


def test_at_the_end_it_prints_the_files_with_their_rows_and_sizes(tmp_path: Path) -> None:
    script = _write(tmp_path, _TWO)
    ran = _mpr_run("--save", "my run.rrd", sys.executable, script, cwd=tmp_path)
    assert ran.returncode == 3, ran.stderr
    first, second = sorted(tmp_path.glob("*.rrd"), key=lambda found: found.name != "my run.rrd")
    size = f"{first.stat().st_size / 1000:.1f} kB"
    assert [line for line in ran.stderr.splitlines() if line.startswith("mpr run:")] == [
        "mpr run: 2 processes have logged to Rerun",
        f"mpr run: my run.rrd: 1,501 rows, {size}",
        f"mpr run: {second.name}: 1 row, {second.stat().st_size / 1000:.1f} kB",
        f"mpr run: open with: rerun 'my run.rrd' '{second.name}'",
    ]
    quiet = _mpr_run("-q", "--save", "quiet.rrd", sys.executable, script, cwd=tmp_path)
    assert (quiet.returncode, [line for line in quiet.stderr.splitlines() if "mpr run:" in line]) == (3, [])


def test_a_run_that_no_process_has_joined_says_so(path: Path, tmp_path: Path) -> None:
    script = _write(tmp_path, "import rerun as rr; rr.log('n', rr.Scalars(1.0))")
    ran = _mpr_run("--save", path, sys.executable, "-I", script)
    assert ran.returncode == 0
    assert ran.stderr.startswith("mpr run: no process has logged to Rerun (a Python that runs with -I")
    ran = _mpr_run("--save", path, sys.executable, script, env={**os.environ, "RERUN": "off"})
    assert ran.returncode == 0
    assert "mpr run: nothing was recorded: Rerun is switched off\n" in ran.stderr


_KILLED = """
import os, signal
import rerun as rr

rr.log("n", rr.Scalars(1.0))
if FLUSHES:
    rr.get_global_data_recording().flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_whose_rows_may_be_missing_is_reported(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("-q", "--save", path, sys.executable, _write(tmp_path, _KILLED.replace("FLUSHES", "False")))
    process, summary = ran.stderr.splitlines()
    assert re.fullmatch(
        r"mpr: a process \(pid \d+\) ended without leaving the recording: its last rows may be missing", process
    )
    assert (ran.returncode, summary) == (
        137,
        "mpr run: 1 process was killed, or still logging at the end: rows of the last moment may be missing",
    )
    support.check_file(path)


def test_a_recording_that_fails_is_reported_and_fails_a_command_that_succeeded(path: Path, tmp_path: Path) -> None:
    source = "import os, sys, rerun as rr; rr.log('n', rr.Scalars(1.0)); os.truncate(sys.argv[1], 10); sys.exit({})"
    for status, expected in ((0, 1), (3, 3)):
        path.unlink(missing_ok=True)
        script = _write(
            tmp_path,
            source.format(status).replace(
                "os.trunc",
                "rr.get_global_data_recording().flush();"
                "import time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nos.trunc",
            ),
        )
        ran = _mpr_run("-q", "--save", path, sys.executable, script, path)
        assert ran.returncode == expected, ran.stderr
        assert "Traceback" not in ran.stderr
        assert [line for line in ran.stderr.splitlines() if line.startswith("mpr run:") and path.name in line]


def test_colour_is_for_terminals(path: Path, tmp_path: Path) -> None:
    script = _write(tmp_path, "import rerun as rr; rr.log('n', rr.Scalars(1.0))")
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "mpr", "run", "--save", path, sys.executable, script]
        subprocess.run(command, stderr=theirs, check=True, timeout=110)
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\x1b[1mmpr run:\x1b[0m" in said
    assert "\x1b" not in _mpr_run("--save", path, sys.executable, script).stderr


# --- live ---------------------------------------------------------------------------------------------------------

_SERVED = """
import sys, time
from pathlib import Path
import rerun as rr

rr.log("n", rr.Scalars(1.0))
rr.get_global_data_recording().flush()
Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.01)
rr.log("n", rr.Scalars(2.0))
"""


def test_a_run_that_is_watched(path: Path, tmp_path: Path) -> None:
    script, port = _write(tmp_path, _SERVED), viewers.free_port()
    started, go_on = tmp_path / "started", tmp_path / "go"
    options = ["--save", path, "--serve", "--port", str(port)]
    command = [sys.executable, "-m", "mpr", "run", *options, "--", sys.executable, script, started, go_on]
    with (tmp_path / "said").open("w") as said:
        running = subprocess.Popen(command, stderr=said)
    support.wait_for(started.exists, 60)
    support.wait_for(lambda: _listens(port), 60)
    with viewers.reading(tmp_path / "got.rrd", viewers.url_of(port)) as receiver:
        support.wait_for(lambda: _numbers(receiver) == {1}, 60)
        for exporter in viewers.exporters(running.pid):
            # `mpr run` blocks signals to wait for them. The processes that it starts must not block them.
            (mask,) = (
                line for line in Path(f"/proc/{exporter.pid}/status").read_text().splitlines() if "SigBlk" in line
            )
            assert int(mask.split()[1], 16) == 0
        go_on.touch()
        assert running.wait(60) == 0
        support.wait_for(lambda: _numbers(receiver) == {1, 2}, 60)
    support.check_file(path)
    assert support.numbers(path) == Counter([1, 2])
    assert f"mpr: to be seen at {viewers.url_of(port)}" in (tmp_path / "said").read_text()
    assert "GrpcServerSink(" in (tmp_path / "said").read_text()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _numbers(receiver: viewers.Receiver) -> set[int]:
    return {int(float(cell.value.strip("[]"))) for cell in receiver.cells() if cell.entity == "/n"}


def test_a_viewer_that_cannot_be_opened_costs_nothing_but_the_view(path: Path, tmp_path: Path) -> None:
    script = _write(tmp_path, "import rerun as rr; rr.log('n', rr.Scalars(1.0))")
    blind = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    ran = _mpr_run("--save", path, "--spawn", sys.executable, script, env=blind)
    assert ran.returncode == 0, ran.stderr
    assert support.numbers(path) == Counter([1])
    assert "mpr run: SpawnViewerSink(" in ran.stderr
    ran = _mpr_run("--save", path, "--port", "1", "true")
    assert ran.returncode == 2
    assert "--port is for --serve" in ran.stderr


_OWN_POOL = """
import multiprocessing, sys, mpr
from tests import functions, tasks
if __name__ == "__main__":
    tasks.log_number(1)
    with mpr.Pool("own", 2, sinks=sys.argv[1]) as pool:
        pool.map(tasks.log_number, range(10, 15))
    functions.log_number(2)
    child = multiprocessing.get_context("spawn").Process(target=tasks.log_number, args=(3,))
    child.start()
    child.join()
"""


def test_a_script_that_has_a_pool_of_its_own(path: Path, tmp_path: Path) -> None:
    ran = _mpr_run("-q", "--save", path, sys.executable, _write(tmp_path, _OWN_POOL), tmp_path / "own.rrd")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert support.numbers(path) == Counter([1, 2, 3])
    assert support.numbers(tmp_path / "own.rrd") == Counter(range(10, 15))
