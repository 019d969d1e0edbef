"""The sockets: messages without the secret are ignored, and nothing is left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zmq

from mpr.transport import encoding, ipc_folder, messages
from mpr.transport.ipc_folder import SocketFolder
from mpr.transport.messages import (
    Function,
    Goodbye,
    Hello,
    NewOutbox,
    Ready,
    Result,
    SegmentReady,
    Stop,
    Tasks,
    Welcome,
)
from mpr.transport.packing import MessageError
from mpr.transport.sockets import Connection, PeerGoneError, Sockets

# Far more than any message takes; nothing waits for so long.
_TIMEOUT_SECS = 30.0


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    found = Sockets()
    yield found
    found.close()


@pytest.fixture
def connect(sockets: Sockets) -> Iterator[Callable[[], Connection]]:
    """Makes connections that are closed before the sockets are."""
    made: list[Connection] = []

    def make() -> Connection:
        made.append(Connection(sockets.up.endpoint, sockets.down.endpoint))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stranger(sockets: Sockets) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket on the parent's upstream end."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(sockets.up.endpoint)
    yield socket
    socket.close()
    context.term()


def _hello(sockets: Sockets, connection: Connection, worker: int = 1) -> Hello:
    return Hello(sockets.secret, worker, os.getpid(), connection.route, "/proc/1/fd/3")


def _received(sockets: Sockets) -> tuple[Hello | None, Any]:
    found = sockets.up.receive(_TIMEOUT_SECS)
    assert found is not None
    return found


# --- accepted messages --------------------------------------------------------------------------------------------


def test_a_producer_with_the_secret_is_heard(sockets: Sockets, connect: Callable[[], Connection]) -> None:
    connection = connect()
    hello = _hello(sockets, connection)
    sent = [
        Ready(),
        SegmentReady(1, 0, 5),
        Result(7, 0, 1, messages.RETURNED, True, 12, [b"payload"]),
        NewOutbox("/proc/1/fd/4"),
        Goodbye(),
    ]
    for message in [hello, *sent]:
        connection.send(message)
    assert [(hello, hello), *((hello, message) for message in sent)] == [_received(sockets) for _ in range(6)]
    assert 0 == sockets.up.rejected_count


def test_each_message_comes_with_the_hello_of_its_producer(sockets: Sockets, connect: Callable[[], Connection]) -> None:
    for worker in (1, 2):
        connection = connect()
        hello = _hello(sockets, connection, worker)
        connection.send(hello)
        connection.send(Goodbye())
        assert [(hello, hello), (hello, Goodbye())] == [_received(sockets), _received(sockets)]


def _number(number: int) -> Result:
    return Result(number, 0, 1, messages.RETURNED, True, 12, [b"payload"])


def _at_instruction(call: Callable[[], object], number: int, event: Callable[[], None]) -> bool:
    """Do `call`, and call `event` before the `number`-th instruction of the sockets. Return False if it has fewer."""
    left = number

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        if frame.f_globals["__name__"] != "mpr.transport.sockets":
            return None
        frame.f_trace_opcodes = True
        if kind == "opcode":
            left -= 1
            if left == 0:
                event()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def test_a_handler_that_interrupts_a_send_may_wait_for_a_thread_that_sends(
    sockets: Sockets, connect: Callable[[], Connection]
) -> None:
    connection = connect()
    connection.send(_hello(sockets, connection))
    _received(sockets)

    def send_in_a_thread() -> None:
        thread = threading.Thread(target=lambda: [connection.send(_number(1)), connection.send(_number(2))])
        thread.start()
        thread.join(_TIMEOUT_SECS)
        assert not thread.is_alive(), "the thread waits for the interrupted one"

    def handler() -> None:
        send_in_a_thread()
        connection.send(_number(3))

    instruction = 1
    while _at_instruction(lambda: connection.send(_number(0)), instruction, handler):
        found = [_received(sockets)[1].work_item for _ in range(4)]
        assert [0, 1, 2, 3] == sorted(found)
        assert [1, 2, 3] == [each for each in found if each]
        instruction += 1
    assert instruction > 20


def test_a_handler_that_raises_in_a_send_costs_no_other_message(
    sockets: Sockets, connect: Callable[[], Connection]
) -> None:
    connection = connect()
    connection.send(_hello(sockets, connection))
    _received(sockets)

    def handler() -> None:
        # It waits in the queue while the interrupted thread has the lock.
        thread = threading.Thread(target=connection.send, args=(_number(1),))
        thread.start()
        thread.join(_TIMEOUT_SECS)
        raise KeyboardInterrupt

    instruction = 1
    while True:
        try:
            if not _at_instruction(lambda: connection.send(_number(0)), instruction, handler):
                break
        except KeyboardInterrupt:
            pass
        connection.send(_number(2))
        found = []
        while found[-1:] != [2]:
            found.append(_received(sockets)[1].work_item)
        assert found in ([0, 1, 2], [1, 0, 2], [1, 2]), instruction
        instruction += 1
    assert instruction > 20


@pytest.mark.parametrize("secret", ["", "wrong", "0" * 64, "ö", "\ud800"])
def test_a_peer_with_a_wrong_secret_is_not_heard(
    sockets: Sockets, connect: Callable[[], Connection], secret: str
) -> None:
    connection = connect()
    connection.send(Hello(secret, 1, 1, connection.route, "/proc/1/fd/3"))
    connection.send(Result(1, 0, 1, messages.RETURNED, True, 0, [b"payload"]))
    connection.send(Goodbye())
    # Each of the three messages is received as a mere wake-up.
    assert [b""] * 3 == [_received(sockets) for _ in range(3)]
    assert 3 == sockets.up.rejected_count
    assert connection.receive(0) is None


def test_a_peer_may_say_hello_again_with_the_right_secret(sockets: Sockets, connect: Callable[[], Connection]) -> None:
    connection = connect()
    hello = _hello(sockets, connection)
    connection.send(Hello("wrong", 1, 1, connection.route, "/proc/1/fd/3"))
    connection.send(hello)
    assert [b"", (hello, hello)] == [_received(sockets), _received(sockets)]


@pytest.mark.parametrize(
    "message",
    [Goodbye(), SegmentReady(1, 0, 3, b"abc"), Result(1, 0, 1, messages.RETURNED, True, 0, [b"x"]), Stop()],
)
def test_a_message_before_the_hello_is_not_heard(
    sockets: Sockets, connect: Callable[[], Connection], message: Any
) -> None:
    connect().send(message)
    assert b"" == _received(sockets)
    assert 1 == sockets.up.rejected_count


def _hello_with(change: dict[str, Any]) -> list[bytes]:
    fields = {"secret": "t", "worker": 1, "pid": 2, "route": "r", "address": "a", "protocol": 1}
    return [b"\x00", json.dumps(fields | change).encode()]


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b""], id="empty"),
        pytest.param([b"\xff", b"rest"], id="unknown kind"),
        pytest.param([b"\x00"], id="hello without a body"),
        pytest.param([b"\x00", b"{"], id="hello that is no json"),
        pytest.param([b"\x00", b"[" * 200_000], id="hello nested too deeply"),
        pytest.param([b"\x00", b"\xff\xfe\xfd"], id="hello that is no text"),
        pytest.param(_hello_with({"secret": 5}), id="secret that is no text"),
        pytest.param(_hello_with({"secret": None}), id="no secret"),
        pytest.param(_hello_with({"worker": "1"}), id="worker that is no number"),
        pytest.param(_hello_with({"route": ["r"]}), id="route that is no text"),
        pytest.param(_hello_with({"extra": 1}), id="hello with more"),
        pytest.param([b"\x02short"], id="segment cut short"),
        pytest.param([b"\x03" + b"\xff" * 1000], id="result of a wrong size"),
        pytest.param([os.urandom(100), os.urandom(100_000)], id="noise"),
    ],
)
def test_garbage_is_counted_and_ignored(
    sockets: Sockets, connect: Callable[[], Connection], stranger: zmq.Socket[bytes], frames: list[bytes]
) -> None:
    stranger.send_multipart(frames)
    assert b"" == _received(sockets)
    assert 1 == sockets.up.rejected_count
    connection = connect()
    hello = _hello(sockets, connection)
    connection.send(hello)
    assert (hello, hello) == _received(sockets)


def test_garbage_of_a_known_producer_does_not_end_its_connection(sockets: Sockets, stranger: zmq.Socket[bytes]) -> None:
    hello = Hello(sockets.secret, 1, 2, "route", "/proc/1/fd/3")
    stranger.send_multipart(encoding.encode(hello))
    stranger.send_multipart([b"\xff"])
    stranger.send_multipart(encoding.encode(Goodbye()))
    # The error comes in the place of the message, so that the receiver can end the connection.
    first, (sender, error), last = (_received(sockets) for _ in range(3))
    assert [(hello, hello), (hello, Goodbye())] == [first, last]
    assert sender is not None
    assert isinstance(error, MessageError)
    assert 1 == sockets.up.rejected_count


def test_the_parent_hears_itself_without_a_hello(sockets: Sockets, connect: Callable[[], Connection]) -> None:
    # As much from itself as from a producer, at the same time: nothing of either is lost.
    connection = connect()
    hello = _hello(sockets, connection)
    connection.send(hello)
    assert (hello, hello) == _received(sockets)
    for number in range(100):
        connection.send(Ready(number))
        sockets.up.post(b"event %d" % number)
    received = [sockets.up.receive(_TIMEOUT_SECS) for _ in range(200)]
    while len(received) < 300 and (more := sockets.up.receive(0)) is not None:
        received.append(more)
    assert [each for each in received if isinstance(each, bytes) and each] == [b"event %d" % n for n in range(100)]
    assert [each[1] for each in received if isinstance(each, tuple)] == [Ready(number) for number in range(100)]
    assert 0 == sockets.up.rejected_count


def test_a_call_that_comes_after_the_end_does_nothing() -> None:
    sockets = Sockets()
    sockets.close()
    sockets.up.post(b"event")


def test_nothing_is_received_if_nothing_was_sent(sockets: Sockets) -> None:
    assert sockets.up.receive(0) is None


# --- downstream ---------------------------------------------------------------------------------------------------


def test_messages_reach_the_producer_of_the_route_in_order(sockets: Sockets, connect: Callable[[], Connection]) -> None:
    connections = [connect(), connect()]
    for connection in connections:
        connection.send(_hello(sockets, connection))
        _received(sockets)
    large = bytes(range(256)) * 1024
    for index, connection in enumerate(connections):
        sent = [
            Welcome(bool(index), index),
            Function(b"a digest of 16 b", b"code"),
            Tasks(5, 1, messages.EACH, 0, 0, 0, 0, b"a digest of 16 b", [b"a", large]),
        ]
        _send_when_connected(sockets, connection.route, sent)
        assert sent == [connection.receive(_TIMEOUT_SECS) for _ in sent]
    assert [None, None] == [connection.receive(0) for connection in connections]


def _send_when_connected(sockets: Sockets, route: str, sent: list[Any]) -> None:
    """The first message again and again until ZeroMQ has connected the second socket; then the rest."""
    deadline = time.monotonic() + _TIMEOUT_SECS
    while True:
        try:
            sockets.down.send(route, sent[0])
        except PeerGoneError:
            assert time.monotonic() < deadline
            os.sched_yield()
        else:
            break
    sockets.down.send(route, *sent[1:])


def test_sending_to_an_unknown_route_is_an_error(sockets: Sockets) -> None:
    with pytest.raises(PeerGoneError, match="nobody"):
        sockets.down.send("nobody", Stop())


def test_sending_after_the_end_is_an_error() -> None:
    sockets = Sockets()
    sockets.close()
    with pytest.raises(PeerGoneError):
        sockets.down.send("route", Stop())


# --- the folder ---------------------------------------------------------------------------------------------------


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_user_can_reach_the_sockets(sockets: Sockets) -> None:
    assert 0o700 == _mode(sockets.folder)
    assert {"up": 0o600, "down": 0o600} == {name: _mode(sockets.folder / name) for name in ("up", "down")}


def test_closing_leaves_no_folder() -> None:
    sockets = Sockets()
    assert sockets.folder.is_dir()
    sockets.close()
    assert not sockets.folder.exists()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `TMPDIR` that is longer than a socket's path may be."""
    folder = tmp_path / ("x" * (149 - len(str(tmp_path))))
    folder.mkdir()
    assert 150 == len(str(folder))
    _use_as_tmpdir(monkeypatch, folder)
    return folder


def _use_as_tmpdir(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    # `tempfile` remembers the folder from the environment.
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_very_long_tmpdir_works(temporary: Path) -> None:
    sockets = Sockets()
    connection = Connection(sockets.up.endpoint, sockets.down.endpoint)
    hello = _hello(sockets, connection)
    connection.send(hello)
    assert (hello, hello) == _received(sockets)
    assert 0o700 == _mode(sockets.folder)
    connection.close()
    sockets.close()
    assert not sockets.folder.exists()
    assert [] == list(temporary.iterdir())


_MAKE_AND_DIE = """
import os, signal
from mpr.transport.ipc_folder import SocketFolder
print(SocketFolder().path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _folder_of_a_killed_process() -> Path:
    killed = subprocess.run([sys.executable, "-c", _MAKE_AND_DIE], stdout=subprocess.PIPE, text=True, timeout=60)
    return Path(killed.stdout.strip())


@pytest.fixture
def short_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # `tmp_path` can be too long for a socket's path.
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        _use_as_tmpdir(monkeypatch, Path(folder))
        yield Path(folder)


def test_sweeping_removes_only_folders_of_killed_owners(short_tmpdir: Path) -> None:
    dead = _folder_of_a_killed_process()
    (dead / "up").touch()
    alive = SocketFolder()
    # Its owner has not locked it yet.
    new = Path(tempfile.mkdtemp(prefix="mpr-"))
    other = short_tmpdir / "another-folder"
    other.mkdir()
    (other / "owner").write_text((dead / "owner").read_text())
    ipc_folder.sweep()
    assert sorted([alive.path, new, other]) == sorted(short_tmpdir.iterdir())
    alive.remove()


def test_a_new_recording_sweeps(short_tmpdir: Path) -> None:
    dead = _folder_of_a_killed_process()
    Sockets().close()
    assert not dead.exists()


def test_folders_of_a_killed_owner_are_found_under_a_very_long_tmpdir(temporary: Path) -> None:
    dead = _folder_of_a_killed_process()
    assert dead.parent == Path("/tmp")
    ipc_folder.sweep()
    assert not dead.exists()
