"""Sample tests that use the SDK and processes; each has the same outcome with and without the plugin."""

import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import pytest
import rerun as rr


def rows(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(chunk.num_rows for chunk in rr.chunk.RrdReader(path).stream() if "__prop" not in chunk.entity_path)


def test_init():
    rr.init("user_app")
    assert rr.get_application_id() == "user_app"
    rr.log("in_init", rr.TextLog("x"))


def test_what_is_left_of_init():
    assert rr.get_application_id() == "user_app"
    rr.log("after_init", rr.TextLog("x"))


def test_init_and_late_save(tmp_path):
    rr.init("user_app")
    rr.log("early", rr.TextLog("x"))
    rr.save(tmp_path / "late.rrd")
    rr.log("late", rr.TextLog("x"))
    rr.disconnect()
    assert rows(tmp_path / "late.rrd") == 2


@pytest.fixture(scope="class")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.rrd"
    rr.init("fixture_app")
    rr.save(path)
    yield path
    rr.disconnect()
    assert rows(path) == 2


@pytest.fixture(scope="class")
def kept_back(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.rrd"
    rr.init("fixture_app_2")
    yield
    rr.save(path)
    rr.disconnect()
    assert rows(path) == 2


class TestFixtureWithSink:
    def test_a(self, own):
        rr.log("a", rr.TextLog("x"))

    def test_b(self, own):
        rr.log("b", rr.TextLog("x"))


class TestFixtureThatSavesAtLast:
    def test_a(self, kept_back):
        rr.log("a", rr.TextLog("x"))

    def test_b(self, kept_back):
        rr.log("b", rr.TextLog("x"))


def test_memory_recording():
    rr.init("memory")
    memory = rr.memory_recording()
    rr.log("m", rr.TextLog("x"))
    assert memory.num_msgs() > 0


def test_set_sinks(tmp_path):
    rr.init("sinks")
    rr.set_sinks(rr.FileSink(str(tmp_path / "s.rrd")))
    rr.log("s", rr.TextLog("x"))
    rr.disconnect()
    assert rows(tmp_path / "s.rrd") == 1


def test_own_stream(tmp_path):
    stream = rr.RecordingStream("own_stream")
    stream.save(tmp_path / "o.rrd")
    with stream:
        rr.log("o", rr.TextLog("x"))
    stream.disconnect()
    assert rows(tmp_path / "o.rrd") == 1


def test_thread_local_is_left():
    rr.set_thread_local_data_recording(rr.RecordingStream("left"))


def test_thread_local_is_cleared():
    assert rr.get_application_id() == "left"
    rr.set_thread_local_data_recording(None)


def test_back_to_none():
    rr.set_global_data_recording(None)


late = threading.Event()


def _late():
    late.wait(30)
    rr.log("late_thread", rr.TextLog("x"))


def test_threads():
    thread = threading.Thread(target=rr.log, args=("thread", rr.TextLog("x")))
    thread.start()
    thread.join()
    threading.Thread(target=_late, name="late").start()


def test_late_thread():
    late.set()
    for thread in threading.enumerate():
        if thread.name == "late":
            thread.join()


@pytest.mark.asyncio
async def test_asyncio():
    rr.log("coroutine", rr.TextLog("x"))
    await asyncio.gather(*(asyncio.to_thread(rr.log, f"to_thread/{n}", rr.TextLog("x")) for n in range(2)))


@pytest.fixture
def anyio_backend(request):
    return getattr(request, "param", "asyncio")


@pytest.fixture
async def async_fixture(anyio_backend):
    rr.log("async_fixture", rr.TextLog("before"))
    yield
    rr.log("async_fixture", rr.TextLog("after"))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)
async def test_anyio(async_fixture, anyio_backend):
    rr.log("anyio", rr.TextLog(anyio_backend))


def test_fork():
    child = os.fork()
    if child == 0:
        rr.log("in_child", rr.TextLog("x"))
        logging.getLogger("child").warning("from the child")
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def _answer(queue):
    queue.put(42)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=_answer, args=(queue,))
    process.start()
    assert queue.get() == 42
    process.join()
    assert process.exitcode == 0


def test_subprocess():
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"


def test_chdir(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rr.log("elsewhere", rr.TextLog("x"))
    assert os.listdir() == []


def test_environment(monkeypatch):
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RERUN_FLUSH_TICK_SECS", "1000")
    monkeypatch.setenv("RERUN", "off")
    rr.log("no_environment", rr.TextLog("x"))


def test_environment_is_really_gone():
    rr.log("environment", rr.TextLog("x"))
    os.environ.pop("HOME", None)


def test_warnings_are_errors():
    with pytest.raises(UserWarning):
        warnings.warn("a warning", stacklevel=1)


def test_logging_is_as_it_was(caplog):
    assert [type(each).__name__ for each in logging.getLogger().handlers if "mpr" in type(each).__module__] == []
    logging.getLogger("x").warning("%d bad", 1)
    assert caplog.messages == ["1 bad"]


def test_output_is_as_it_was(capsys):
    print("x")
    assert capsys.readouterr() == ("x\n", "")


def test_threads_of_python():
    assert [each.name for each in threading.enumerate() if each is not threading.main_thread()] == []


def test_context(request):
    assert request.node.user_properties is not None
