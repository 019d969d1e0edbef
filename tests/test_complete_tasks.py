"""The parent remembers which tasks of other engines are complete, and answers questions about them."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from mpr.aggregator.complete_tasks import CompleteTasks
from mpr.errors import SinkError
from mpr.producer.key_questions import KeyQuestions
from mpr.tasks import engine_task
from mpr.tasks.engine_task import EngineCall
from mpr.transport.key_filter import KeyFilterReader
from mpr.transport.messages import KEY_BYTES, Hello, KeyAnswer, KeyWanted, Sync, Synced
from mpr.transport.outbox import Outbox
from tests import support
from tests.producers import ParentEnd, ProducerEnd

_TIMEOUT_SECS = 30.0


def _keys(count: int, seed: int = 1) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(KEY_BYTES) for _ in range(count)]


def test_only_keys_that_were_added_are_known(tmp_path: Path) -> None:
    tasks = CompleteTasks(tmp_path)
    added, others = _keys(5000), _keys(5000, seed=2)
    tasks.add(b"".join(added[:100]))
    for key in added[100:]:
        tasks.add(key)
    assert all(key in tasks for key in added)
    assert not any(key in tasks for key in others)


def test_the_end_of_a_key_and_the_beginning_of_the_next_are_no_key(tmp_path: Path) -> None:
    tasks = CompleteTasks(tmp_path)
    bucket = b"ab"
    first, second = bytes(range(14)), bytes(range(100, 114))
    tasks.add(bucket + first + bucket + second)
    for shift in range(1, 14):
        assert bucket + (first + second)[shift : shift + 14] not in tasks
    # The bytes of a third key stand across the two, and then in their own place.
    third = (first + second)[5:19]
    tasks.add(bucket + third)
    assert bucket + third in tasks


def test_runs_of_complete_tasks_are_counted_and_said_once(tmp_path: Path) -> None:
    tasks = CompleteTasks(tmp_path)
    key, other = _keys(2)
    with support.records_of_mpr() as records:
        assert tasks.answer(KeyWanted(1, key)) == KeyAnswer(1, is_complete=False)
        tasks.add(key)
        assert tasks.answer(KeyWanted(2, key)) == KeyAnswer(2, is_complete=True)
        assert tasks.answer(KeyWanted(3, key)) == KeyAnswer(3, is_complete=True)
        assert tasks.answer(KeyWanted(4, other)) == KeyAnswer(4, is_complete=False)
    assert tasks.repeated == 2
    assert len(records) == 1


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    parent = ParentEnd(tmp_path / "run.rrd")
    process = ProducerEnd(tmp_path)
    intake = parent.intake(process)
    yield parent, intake
    intake.close()
    process.close()
    parent.writer.close()


def test_a_task_is_complete_when_its_sync_is_answered(pair: tuple[ParentEnd, Any]) -> None:
    parent, intake = pair
    key, other = _keys(2)
    intake.take(KeyWanted(1, key))
    intake.take(Sync(1, key))
    intake.take(KeyWanted(2, key))
    intake.take(KeyWanted(3, other))
    assert parent.answers == [
        KeyAnswer(1, is_complete=False),
        Synced(1, ""),
        KeyAnswer(2, is_complete=True),
        KeyAnswer(3, is_complete=False),
    ]


def test_a_task_whose_rows_are_lost_is_not_complete(pair: tuple[ParentEnd, Any]) -> None:
    parent, intake = pair
    (key,) = _keys(1)
    parent.fanout.give_up(SinkError("the disk is full"))
    intake.take(Sync(1, key))
    intake.take(KeyWanted(1, key))
    assert parent.answers[1] == KeyAnswer(1, is_complete=False)
    assert parent.answers[0].failure


def test_each_question_gets_its_own_answer() -> None:
    """Two threads ask, and the answers come in the other order."""
    asked: list[KeyWanted] = []
    both = threading.Event()

    def ask(question: KeyWanted, has_answer: Any) -> None:
        asked.append(question)
        if len(asked) == 2:
            for each in reversed(asked):
                questions.take(KeyAnswer(each.number, each.key == b"known"))
            both.set()
        assert both.wait(_TIMEOUT_SECS)
        assert has_answer()

    questions = KeyQuestions(ask, "")
    found: dict[bytes, bool] = {}
    threads = [
        threading.Thread(target=lambda key=key: found.update({key: questions.is_complete(key)}))
        for key in (b"known", b"new")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT_SECS)
    assert found == {b"known": True, b"new": False}


def test_the_filter_answers_for_tasks_that_are_not_complete(tmp_path: Path) -> None:
    tasks = CompleteTasks(tmp_path)
    assert tasks.key_filter(Hello("s", 1, 1, "r", "a")) == ""
    address = tasks.key_filter(Hello("s", 0, 1, "r", "a"))
    if not address:
        pytest.skip("this system has no files in memory")
    asked: list[bytes] = []

    def ask(question: KeyWanted, _: Any) -> None:
        asked.append(question.key)
        questions.take(tasks.answer(question))

    questions = KeyQuestions(ask, address)
    added, others = _keys(1000), _keys(1000, seed=2)
    assert not any(questions.is_complete(key) for key in added)
    assert asked == []
    tasks.add(b"".join(added))
    assert all(questions.is_complete(key) for key in added)
    assert asked == added
    assert not any(questions.is_complete(key) for key in others)
    assert len(asked) - len(added) < 10
    tasks.close()
    # A process that has opened it keeps it, and no other process can open it any more.
    assert questions.is_complete(added[0])
    assert tasks.key_filter(Hello("s", 0, 1, "r", "a")) == ""
    with pytest.raises(OSError, match=r"."):
        KeyFilterReader(address)


def test_a_wrong_address_is_no_filter(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    path, _, name = outbox.address.partition("#")
    for address in ("", str(tmp_path), outbox.address, f"{path}#mpr-keys-{'0' * 32}", f"{path}#{name}x"):
        with pytest.raises(OSError, match=r"."):
            KeyFilterReader(address)
    outbox.close()


def test_the_first_attempt_and_a_call_without_a_key_ask_nothing() -> None:
    def ask(_: bytes) -> bool:
        raise AssertionError("this needs no question")

    assert not EngineCall(b"key", 0).is_repeated(ask)
    assert not EngineCall(b"", None).is_repeated(ask)
    assert not EngineCall(b"", 3).is_repeated(ask)
    for attempt in (None, 1):
        assert EngineCall(b"key", attempt).is_repeated(lambda key: key == b"key")


def test_a_process_without_an_engine_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "distributed.worker"):
        monkeypatch.delitem(engine_task.sys.modules, name, raising=False)
    assert engine_task.current_call("work", "recording") is None
    assert engine_task.current_attempt() is None


class _Engine:
    """Stands for Dask's worker module: its worker runs the task `key` in the thread that asks."""

    def __init__(self) -> None:
        self.active_keys: set[str] = set()
        self.scheduler = self.state = self
        self.address = "tcp://scheduler"
        self.tasks: dict[str, Any] = {}
        self.active_threads: dict[int, str] = {}

    def get_worker(self) -> _Engine:
        return self

    def run(self, key: str, run_id: int, priority: tuple[int, ...] = (0, 1, 2)) -> None:
        self.active_threads[threading.get_ident()] = key
        self.tasks[key] = type("Task", (), {"run_id": run_id, "priority": priority})()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> _Engine:
    found = _Engine()
    monkeypatch.delitem(engine_task.sys.modules, "ray", raising=False)
    monkeypatch.setitem(engine_task.sys.modules, "distributed.worker", found)
    return found


def _next_keys(*functions: str) -> list[bytes]:
    calls = [engine_task.current_call(each, "recording") for each in functions]
    return [each.key for each in calls if each is not None]


def test_all_runs_of_a_task_give_its_calls_the_same_keys(engine: _Engine) -> None:
    names = ("work", "work", "other", "work")
    engine.run("a", 1)
    first = _next_keys(*names)
    assert len(set(first)) == 4
    assert {len(key) for key in first} == {KEY_BYTES}
    engine.run("b", 2)
    assert not set(first) & set(_next_keys(*names))
    # The same worker runs the first task again, and another number of calls of other functions comes between.
    engine.run("a", 3)
    assert _next_keys("third", *names)[1:] == first


def test_an_equal_task_that_is_submitted_later_has_another_key(engine: _Engine) -> None:
    engine.run("a", 1, (0, 1, 2, -5))
    first = _next_keys("work")
    engine.run("a", 2, (0, 1, 2, -8))
    assert _next_keys("work") == first
    engine.run("a", 3, (0, 2, 2, -9))
    assert _next_keys("work") != first


def test_the_method_of_an_actor_has_no_key(engine: _Engine) -> None:
    engine.active_threads[threading.get_ident()] = "Counter.add"
    assert _next_keys("work") == []


def test_another_release_of_an_engine_gives_no_key(engine: _Engine) -> None:
    engine.run("a", 1)
    del engine.state
    assert _next_keys("work") == []
