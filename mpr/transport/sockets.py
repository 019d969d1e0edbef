"""Connects the parent of a recording with its producers by sockets. Only this module uses ZeroMQ.

A *producer* is a process that logs, such as a worker. Its first message, `Hello`, has the recording's secret.

```
producer                                   parent
Upstream    DEALER ── segments, results ──► ROUTER   UpstreamServer    read by the aggregator's thread alone
Downstream  DEALER ◄── tasks, stop ──────── ROUTER   DownstreamServer  written under a lock, by any thread
```

All sockets are `ipc://` sockets in a new folder of mode 0700. A producer has two sockets, because only one thread at a
time may use a ZeroMQ socket: one thread waits for messages while others send. The parent drops the messages of a peer
that has not sent the recording's secret.

Covers: both pairs of sockets, the check of the secret, and messages from threads of the parent (`post`).
Does not cover: the types and the bytes of messages (`messages.py`, `encoding.py`), the folder (`ipc_folder.py`).
"""

from __future__ import annotations

import atexit
import hmac
import itertools
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

# Imported now, because this registers the exit handler of pyzmq. mpr's exit handler has to run before it, and the
# handlers run in reverse order.
import zmq.utils.garbage

from mpr.limits import MESSAGE_MAX_BYTES
from mpr.threads import WakeupPipe
from mpr.transport import ipc_folder
from mpr.transport.encoding import decode, encode
from mpr.transport.ipc_folder import SocketFolder
from mpr.transport.messages import Downstream as DownstreamMessage
from mpr.transport.messages import Hello
from mpr.transport.messages import Upstream as UpstreamMessage
from mpr.transport.packing import Buffer, Frames, MessageError, pack, unpack

# The longest time that a closing socket waits until it has passed its messages to the kernel (milliseconds).
_LINGER_MS = 2000
# Frames above this size (bytes) are sent and received without a copy.
_COPY_LIMIT = 64 * 1024


class _Exit:
    """Remembers if the exit handlers (`atexit`) of this process have begun. From then on, each message is copied.

    The reason is that the exit handler of pyzmq drops the messages in a socket that were sent without a copy.
    """

    has_begun = False


def _begin_exit() -> None:
    _Exit.has_begun = True


atexit.register(_begin_exit)


class PeerGoneError(Exception):
    """The error if the receiver of a message is not connected, or if the socket of the sender is closed."""


class Sockets:
    """The parent's two sockets, and the private folder that contains them.

    Attributes
    ----------
    folder:
        The path of the private folder.
    secret:
        The secret that a producer must send in its first message.
    up, down:
        Receives messages from producers, and sends messages to producers.
    """

    def __init__(self) -> None:
        ipc_folder.sweep()
        self._folder = SocketFolder()
        self.folder: Path = self._folder.path
        self.secret: str = secrets.token_hex(32)
        self._context = zmq.Context()
        self.up: UpstreamServer = UpstreamServer(self._context, self.folder, self.secret)
        self.down: DownstreamServer = DownstreamServer(self._context, self.folder)

    def loss(self) -> str | None:
        """Return a sentence, without a full stop, which says that the folder was moved or removed.

        Returns None if the folder is still there.
        """
        return self._folder.loss()

    def obstacle(self) -> str | None:
        """Return a sentence, without a full stop, that says why no process can join; None if no reason is known."""
        return self._folder.obstacle()

    def close(self) -> None:
        """Close both sockets and remove the folder."""
        self.up.close()
        self.down.close()
        self._context.term()
        self._folder.remove()


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    # The queue of messages has no limit, because ZeroMQ counts messages, and a ROUTER drops all messages above the
    # limit. mpr limits bytes instead: `rr.log` waits while the outbox of its process is full.
    socket.set_hwm(0)
    socket.linger = _LINGER_MS
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
    return socket


def _bind(socket: zmq.Socket[bytes], path: Path) -> str:
    endpoint = f"ipc://{path}"
    socket.bind(endpoint)
    os.chmod(path, 0o600)
    return endpoint


class UpstreamServer:
    """Receives the messages of all producers, in the parent. Only one thread may call `receive`.

    Parameters
    ----------
    context:
        The ZeroMQ context of the parent.
    folder:
        The private folder for the socket.
    secret:
        The recording's secret. Messages of a peer that has not sent it are dropped.

    Attributes
    ----------
    endpoint:
        The address of the socket, for producers.
    rejected_count:
        The number of messages that were dropped or could not be decoded.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, secret: str) -> None:
        self._socket = _socket(context, zmq.ROUTER)
        self._receiver = _Receiver(self._socket)
        self.endpoint: str = _bind(self._socket, folder / "up")
        self._secret = secret.encode()
        self._posted: deque[bytes] = deque()
        self._wakeup = WakeupPipe()
        # The arguments of `zmq_poll`. `Any`, because the annotations of pyzmq do not allow descriptors.
        self._waits_for: list[Any] = [(self._socket, int(zmq.POLLIN)), (self._wakeup.fileno(), int(zmq.POLLIN))]
        self._greeted: dict[bytes, Hello] = {}
        self.rejected_count: int = 0

    def post(self, data: bytes) -> None:
        """Have `receive` return `data` later. Does nothing if `close` was called.

        Any thread and any signal handler may call this method, because it takes no lock.
        """
        self._posted.append(data)
        self._wakeup.wake()

    def receive(self, timeout_secs: float) -> tuple[Hello, UpstreamMessage | MessageError] | bytes | None:
        """Return the next message as (hello of its producer, message), or the next bytes that `post` was given.

        If the bytes of a producer are no message, returns (hello, `MessageError`) and does not raise the error. Returns
        empty bytes if there is nothing to process, for example after a message of a peer that has not sent the secret.
        Returns None if nothing arrives within `timeout_secs`.
        """
        if self._posted:
            return self._posted.popleft()
        frames = self._receiver.receive(0)
        if frames is None and timeout_secs:
            ready = [each for each, _ in zmq.zmq_poll(self._waits_for, int(timeout_secs * 1000))]
            if self._waits_for[1][0] in ready:
                self._wakeup.clear()
                return self._posted.popleft() if self._posted else b""
            frames = self._receiver.receive(0)
        return None if frames is None else self._understand(frames)

    def _understand(self, frames: list[zmq.Frame]) -> tuple[Hello, UpstreamMessage | MessageError] | bytes:
        sender = frames[0].bytes
        hello = self._greeted.get(sender)
        try:
            light = [_light(frame) for frame in frames[1:]]
            message = decode(unpack(light[0]) if len(light) == 1 else light)
        except MessageError as error:
            self.rejected_count += 1
            return b"" if hello is None else (hello, error)
        if hello is not None:
            return hello, message  # type: ignore[return-value]  # downstream kinds are ignored by the receiver
        if isinstance(message, Hello) and self._knows_secret(message):
            self._greeted[sender] = message
            return message, message
        self.rejected_count += 1
        return b""

    def _knows_secret(self, hello: Hello) -> bool:
        # `backslashreplace`, because JSON may contain a text that UTF-8 cannot encode (a lone surrogate).
        return hmac.compare_digest(hello.secret.encode(errors="backslashreplace"), self._secret)

    def forget(self, hello: Hello) -> None:
        """Drop all messages of the producer of `hello` from now on, because it has ended or is not what it says."""
        for sender in [sender for sender, known in self._greeted.items() if known is hello]:
            del self._greeted[sender]

    def close(self) -> None:
        """Close the socket. `post` has no effect after that."""
        self._socket.close()
        self._wakeup.close()


# Flags for `send` and `recv`, as plain numbers. pyzmq's `send_multipart` and `recv_multipart` are not used, because
# they take twice the time: they make an enum of the flags of each frame.
_MORE = int(zmq.SNDMORE)
_NOBLOCK = int(zmq.NOBLOCK)


def _send(socket: zmq.Socket[bytes], frames: Frames) -> None:
    """Send `frames` as one message. No other thread may use the socket meanwhile."""
    copy = _copies(frames)
    for frame in frames[:-1]:
        socket.send(frame, _MORE, copy=copy)
    socket.send(frames[-1], copy=copy)


class _Receiver:
    """Receives messages from a socket, in one thread at a time."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # The current timeout of the socket (milliseconds). It is kept here, because asking the socket takes 1 us.
        self._timeout = -1

    def receive(
        self, timeout_secs: float | None, before_waiting: Callable[[], None] | None = None
    ) -> list[zmq.Frame] | None:
        """Return the frames of the next message; None if no message arrives within `timeout_secs` (None: no limit).

        If no message is there at the time of the call, `before_waiting` is called before the wait.
        """
        socket = self._socket
        try:
            frames = [socket.recv(_NOBLOCK, copy=False)]
        except zmq.Again:
            if before_waiting is not None:
                before_waiting()
            # Not `poll` and then `recv`, because both together take three times as long as a `recv` that waits.
            timeout = -1 if timeout_secs is None else int(timeout_secs * 1000)
            if not timeout:
                return None
            if self._timeout != timeout:
                socket.rcvtimeo = self._timeout = timeout
            try:
                frames = [socket.recv(0, copy=False)]
            except zmq.Again:
                return None
        while frames[-1].more:
            frames.append(socket.recv(_NOBLOCK, copy=False))
        return frames


def _light(frame: zmq.Frame) -> bytes | memoryview:
    return frame.bytes if len(frame) <= _COPY_LIMIT else frame.buffer


class DownstreamServer:
    """Sends messages of the parent to producers. Any thread may send.

    Parameters
    ----------
    context:
        The ZeroMQ context of the parent.
    folder:
        The private folder for the socket.

    Attributes
    ----------
    endpoint:
        The address of the socket, for producers.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path) -> None:
        self._socket = _socket(context, zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.endpoint: str = _bind(self._socket, folder / "down")
        self._lock = threading.Lock()
        self._closed = False

    def send(self, route: str, *messages: DownstreamMessage) -> None:
        """Send `messages` to the producer with the name `route`.

        Raises `PeerGoneError` if the producer is not connected, or after `close`.
        """
        with self._lock:
            if self._closed:
                raise PeerGoneError(route)
            for message in messages:
                frames: Frames = [route.encode(), *encode(message)]
                try:
                    _send(self._socket, frames)
                except zmq.ZMQError as error:
                    raise PeerGoneError(route) from error

    def close(self) -> None:
        """Close the socket. From now on, `send` raises `PeerGoneError`."""
        with self._lock:
            self._closed = True
            self._socket.close()


def _copies(frames: Frames) -> bool:
    """Return True if ZeroMQ should copy `frames` when it sends them.

    Messages of up to 64 KiB are faster with a copy, larger ones without. Each message is copied after the exit handlers
    have begun (see `_Exit`).
    """
    return _Exit.has_begun or sum(len(frame) for frame in frames) <= _COPY_LIMIT


class Connection:
    """The two sockets of a producer. Any thread may call `send`, but only one thread at a time may call `receive`.

    Parameters
    ----------
    upstream, downstream:
        The endpoints of the parent's two sockets.
    copies:
        True if every message is copied. A process that may still send messages at its exit needs this (see `_Exit`).

    Attributes
    ----------
    route:
        The name of this producer, by which the parent sends messages to it.
    sent_count:
        How many messages `send` was given. The last ones may wait for another thread, which sends them.
    needed_count:
        The value of `sent_count` after the last call of `send_needed`.
    """

    def __init__(self, upstream: str, downstream: str, *, copies: bool = False) -> None:
        self._copies = copies
        self.route: str = secrets.token_hex(16)
        self.sent_count: int = 0
        self.needed_count: int = 0
        self._context = zmq.Context()
        self._up = _socket(self._context, zmq.DEALER)
        self._up.connect(upstream)
        # The arguments of `_send_up` for each message that is not in the socket yet, in the order of sending.
        self._waiting: deque[tuple[Buffer, int, bool]] = deque()
        # The method of `zmq.Socket` that is written in C.
        self._send_up = super(zmq.Socket, self._up).send
        # Re-entrant, because a handler of a signal may send while this thread sends. No thread waits for it.
        self._up_lock = threading.RLock()
        self._down = _socket(self._context, zmq.DEALER)
        self._down.setsockopt(zmq.IDENTITY, self.route.encode())
        self._down.connect(downstream)
        self._receiver = _Receiver(self._down)

    def send(self, message: UpstreamMessage) -> None:
        """Send `message` to the parent. Does not wait until the parent has received it.

        If another thread sends at this moment, that thread sends `message`, too.
        """
        data = pack(encode(message))
        waiting = data, 0, self._copies or _copies([data])
        # Counted first, so that `sent_count` is never too low for a message of the queue. Neither a handler nor another
        # thread runs within `+=`, because CPython changes between them only at calls and loops.
        self.sent_count += 1
        self._waiting.append(waiting)
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send the messages of the queue, unless another thread is sending them.

        The thread that sends holds `_up_lock`. This method does not wait for the lock: a handler of a signal may have
        interrupted the thread that holds the lock, and may wait for another thread that sends a message.
        """
        # The second look finds a message that another thread has added when it could not get the lock.
        while self._waiting and self._up_lock.acquire(blocking=False):
            try:
                # A loop without instructions of Python, between which a handler could run. So no message is lost or
                # sent too late when a handler raises or sends.
                deque(itertools.starmap(self._send_up, iter(self._waiting.popleft, None)), maxlen=0)
            except IndexError:
                pass  # The queue is empty.
            finally:
                self._up_lock.release()

    def send_needed(self, message: UpstreamMessage) -> None:
        """Send `message`, without which the parent may not use later results of the journal.

        The journal stores `needed_count` beside each result (`result_journal.py`).
        """
        self.send(message)
        self.needed_count = self.sent_count

    def receive(
        self, timeout_secs: float | None = None, before_waiting: Callable[[], None] | None = None
    ) -> DownstreamMessage | None:
        """Return the next message; None if no message arrives within `timeout_secs` (None: no limit).

        If no message is there at the time of the call, `before_waiting` is called before the wait.
        """
        frames = self._receiver.receive(timeout_secs, before_waiting)
        if frames is None:
            return None
        return decode([_light(frame) for frame in frames])  # type: ignore[return-value]  # the parent is trusted

    def close(self, *, hand_over: bool = True) -> None:
        """Close both sockets. If `hand_over` is True, wait up to 2 s until the kernel has all sent messages.

        If `hand_over` is False, messages that the kernel does not have yet are dropped.
        """
        linger = _LINGER_MS if hand_over else 0
        # Waits for another thread at most until it has sent its messages.
        with self._up_lock:
            self._send_waiting()
            self._up.close(linger)
        self._down.close(linger)
        self._context.term()
