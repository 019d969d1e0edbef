"""Every message survives the wire. Bytes that are no message are refused and not interpreted."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpr.aggregator import events
from mpr.aggregator.events import StopRequested, Wakeup, WorkerExited
from mpr.transport import encoding, messages
from mpr.transport.messages import (
    Accepted,
    Flush,
    Function,
    Goodbye,
    Hello,
    Indices,
    IndicesWanted,
    InitializerFailed,
    KeyAnswer,
    KeyWanted,
    NewOutbox,
    Ready,
    Result,
    ResultInMemory,
    RowsCounted,
    SegmentReady,
    Skipped,
    Stop,
    Sync,
    Synced,
    TaskBegan,
    TaskEnded,
    TaskRecordingRows,
    Tasks,
    Undelivered,
    Welcome,
)
from mpr.transport.packing import MessageError

_U8 = st.integers(0, 2**8 - 1)
_U16 = st.integers(0, 2**16 - 1)
_U32 = st.integers(0, 2**32 - 1)
_U64 = st.integers(0, 2**64 - 1)
_TEXT = st.text(max_size=40)
_DIGEST = st.binary(min_size=16, max_size=16)
_PAYLOAD = st.lists(st.binary(max_size=50), max_size=4)


@st.composite
def _segments(draw: st.DrawFn) -> SegmentReady:
    data = draw(st.none() | st.binary(max_size=50))
    start = draw(st.integers(0, 2**63))
    end = start + (draw(st.integers(0, 2**62)) if data is None else len(data))
    return SegmentReady(draw(_U32), start, end, data)


_MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    Hello: st.builds(Hello, _TEXT, st.integers(), st.integers(), _TEXT, _TEXT, _TEXT, st.integers(), st.booleans()),
    Ready: st.builds(Ready),
    NewOutbox: st.builds(NewOutbox, _TEXT),
    SegmentReady: _segments(),
    Result: st.builds(Result, _U64, _U32, _U32, _U8, st.booleans(), _U32, _PAYLOAD),
    ResultInMemory: st.builds(
        ResultInMemory,
        st.builds(Result, _U64, _U32, _U32, _U8, st.booleans(), _U32, st.just([])),
        _U8,
        st.binary(max_size=50),
    ),
    TaskRecordingRows: st.builds(TaskRecordingRows, st.binary(max_size=50)),
    InitializerFailed: st.builds(InitializerFailed, _PAYLOAD),
    TaskBegan: st.builds(TaskBegan, _U64, _U32, _U32, _U64),
    TaskEnded: st.builds(TaskEnded, st.floats(allow_nan=False), st.none() | _TEXT),
    Skipped: st.builds(Skipped, _U64),
    Undelivered: st.builds(Undelivered, st.text(), st.booleans()),
    Goodbye: st.builds(Goodbye),
    Sync: st.builds(Sync, _U64, st.lists(_DIGEST, max_size=3).map(b"".join)),
    Synced: st.builds(Synced, _U64, _TEXT, _U64),
    Welcome: st.builds(Welcome, st.booleans(), _U64, _TEXT),
    IndicesWanted: st.builds(IndicesWanted, _U64),
    Indices: st.builds(Indices, _U64, _U32),
    KeyWanted: st.builds(KeyWanted, _U64, _DIGEST),
    KeyAnswer: st.builds(KeyAnswer, _U64, st.booleans()),
    Function: st.builds(Function, st.binary(max_size=50), st.binary(max_size=50)),
    Tasks: st.builds(Tasks, _U64, _U64, _U8, _U32, _U32, _U16, _U64, _DIGEST, _PAYLOAD),
    Accepted: st.builds(Accepted, _U32, _U64),
    Stop: st.builds(Stop),
    Flush: st.builds(Flush),
    RowsCounted: st.builds(RowsCounted, _U64),
}


def test_the_list_of_messages_above_is_complete() -> None:
    assert set(_MESSAGES) == set(messages.Upstream.__args__) | set(messages.Downstream.__args__)


@given(st.one_of(*_MESSAGES.values()))
@settings(deadline=None)
def test_a_message_comes_out_as_it_went_in(message: Any) -> None:
    frames = encoding.encode(message)
    assert message == encoding.decode([bytes(frame) for frame in frames])
    # Large frames arrive as views on ZeroMQ's memory.
    assert message == encoding.decode([memoryview(frame) for frame in frames])


def _decoded_or_refused(frames: list[Any]) -> None:
    try:
        encoding.decode(frames)
    except MessageError:
        pass


@given(st.lists(st.binary(max_size=40), max_size=4))
@settings(deadline=None)
def test_arbitrary_frames_are_a_message_or_a_message_error(frames: list[bytes]) -> None:
    _decoded_or_refused(frames)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(_U8.filter(lambda kind: kind < 16), _JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@settings(deadline=None)
def test_any_body_behind_a_known_kind_is_a_message_or_a_message_error(kind: int, body: bytes) -> None:
    _decoded_or_refused([bytes([kind]), body])


@given(st.one_of(*_MESSAGES.values()), st.data())
@settings(deadline=None)
def test_a_message_with_frames_cut_short_or_missing_is_a_message_error_or_another_message(
    message: Any, data: st.DataObject
) -> None:
    frames = [bytes(frame) for frame in encoding.encode(message)]
    index = data.draw(st.integers(0, len(frames) - 1))
    cut = frames[index][: data.draw(st.integers(0, len(frames[index])))]
    _decoded_or_refused([*frames[:index], cut, *frames[index + 1 :]])
    _decoded_or_refused(frames[:index])


_HELLO_KIND = encoding.encode(Hello("t", 1, 2, "r", "a"))[0]


@pytest.mark.parametrize(
    "change",
    [
        {"secret": 5},
        {"secret": None},
        {"worker": "1"},
        {"worker": True},
        {"worker": 1.0},
        {"pid": [1]},
        {"route": {}},
        {"address": 0},
        {"status_page": 0},
        {"protocol": "1"},
        {"more": 1},
    ],
)
def test_a_hello_with_a_field_of_a_wrong_type_is_refused(change: dict[str, Any]) -> None:
    hello = Hello("t", 1, 2, "r", "a", "s")
    fields = dataclasses.asdict(hello)
    assert hello == encoding.decode([_HELLO_KIND, json.dumps(fields).encode()])
    with pytest.raises(MessageError):
        encoding.decode([_HELLO_KIND, json.dumps(fields | change).encode()])


def test_the_repr_of_a_hello_does_not_have_the_secret() -> None:
    """An unexpected message is logged as a text."""
    assert "secret" not in repr(Hello("secret", 1, 2, "r", "a"))


@pytest.mark.parametrize("kind", [_HELLO_KIND, encoding.encode(TaskEnded(0.0, None))[0]])
def test_json_nested_too_deeply_to_parse_is_refused(kind: bytes) -> None:
    """A stranger could otherwise end the receiving thread with one small message."""
    with pytest.raises(MessageError):
        encoding.decode([kind, b"[" * 200_000])


@pytest.mark.parametrize(
    "body", [b"[1.0]", b"[1.0, null, 3]", b'["1", null]', b"[1.0, 0]", b"{}", b'"12"', b"[1, null]"]
)
def test_the_end_of_a_task_with_other_than_a_number_and_a_text_is_refused(body: bytes) -> None:
    with pytest.raises(MessageError):
        encoding.decode([encoding.encode(TaskEnded(0.0, None))[0], body])


@given(st.builds(WorkerExited, st.integers(), st.none() | st.integers()) | st.builds(StopRequested) | st.builds(Wakeup))
def test_an_event_comes_as_it_was_sent(event: events.Event) -> None:
    assert event == events.decode(events.encode(event))


def test_a_segment_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(MessageError):
        encoding.decode(encoding.encode(SegmentReady(1, 10, 5)))


def test_a_segment_with_other_bytes_than_it_says_is_refused() -> None:
    with pytest.raises(MessageError):
        encoding.decode(encoding.encode(SegmentReady(1, 10, 20, b"short")))


def test_keys_of_a_wrong_size_are_refused() -> None:
    head, keys = encoding.encode(Sync(1, bytes(32)))
    assert Sync(1, bytes(16)) == encoding.decode([head, keys[:16]])
    with pytest.raises(MessageError, match="wrong size"):
        encoding.decode([head, keys[:17]])


def test_no_frames_and_an_empty_frame_are_refused() -> None:
    for frames in ([], [b""]):
        with pytest.raises(MessageError):
            encoding.decode(frames)


def test_a_kind_of_a_later_protocol_is_refused() -> None:
    with pytest.raises(MessageError, match="unknown kind 200"):
        encoding.decode([struct.pack("<B", 200)])


class _Trap:
    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _spring, ()


def _spring() -> None:
    _Trap.sprung = True


@pytest.mark.parametrize(
    "message",
    [
        Result(1, 0, 1, messages.RETURNED, True, 5, [pickle.dumps(_Trap())]),
        Tasks(1, 1, messages.CALL, 0, 0, 0, 0, b"a digest of 16 b", [pickle.dumps(_Trap())]),
        InitializerFailed([pickle.dumps(_Trap())]),
        Function(b"a digest of 16 b", pickle.dumps(_Trap())),
    ],
)
def test_decoding_does_not_unpickle(message: Any) -> None:
    assert message == encoding.decode(encoding.encode(message))
    assert not _Trap.sprung


def test_the_module_cannot_unpickle() -> None:
    tree = ast.parse(inspect.getsource(encoding))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {"json", "struct"} == imported
