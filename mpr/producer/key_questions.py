"""Asks the parent if an engine task is complete, which means that every durable sink has all rows of the task.

Covers: the question and its answer, and the *key filter* (`transport/key_filter.py`): memory which shows that a task is
certainly not complete, so that no question is needed.
Does not cover: the keys of tasks (`tasks/engine_task.py`), the parent's list of keys (`aggregator/complete_tasks.py`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

from mpr.threads import aside
from mpr.transport.key_filter import KeyFilterReader
from mpr.transport.messages import KeyAnswer, KeyWanted


class KeyQuestions:
    """Asks about the keys of engine tasks for one producer. Any thread may call the methods.

    Parameters
    ----------
    ask:
        `ask(question, has_answer)` sends the message `question`, and waits until `has_answer()` returns True.
    filter_address:
        The address of the recording's key filter; empty if there is none.
    """

    def __init__(self, ask: Callable[[KeyWanted, Callable[[], bool]], None], filter_address: str) -> None:
        self._ask = ask
        self._filter_address = filter_address
        self._numbers = itertools.count(1)
        #: The answers that have come, by the numbers of their questions.
        self._answers: dict[int, bool] = {}

    def is_complete(self, key: bytes) -> bool:
        """Return True if the engine task with this key is complete.

        Asks the parent, unless the key filter shows that the task is not complete. Raises `RecordingClosedError` if the
        recording is closed, and `DeliveryError` if the parent does not answer.
        """
        if self._filter is not None and not self._filter.may_have(key):
            return False
        number = next(self._numbers)
        # Aside, because a handler of a signal may interrupt the wait, and begin a task itself.
        aside(lambda: self._ask(KeyWanted(number, key), lambda: number in self._answers))
        return self._answers.pop(number)

    @functools.cached_property
    def _filter(self) -> KeyFilterReader | None:
        """The key filter; None if this process cannot open it."""
        try:
            return KeyFilterReader(self._filter_address)
        except OSError:
            return None

    def take(self, message: KeyAnswer) -> None:
        """Keep the parent's answer for the thread that waits for it."""
        self._answers[message.number] = message.is_complete
