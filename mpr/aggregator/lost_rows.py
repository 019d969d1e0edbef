"""Reports that rows of one producer are lost, and decides which of its results fail for this reason.

A process that has joined is a producer that is no worker of a pool. It asks by a message `Sync` if its rows have
arrived, and gets the answer `Synced`.
"""

from __future__ import annotations

import logging

from mpr.aggregator.fanout import Fanout
from mpr.aggregator.guard import hear
from mpr.aggregator.listener import Listener
from mpr.errors import DeliveryError, describe_process
from mpr.transport.messages import NO_END, Hello, Synced, Undelivered
from mpr.user_code import log as _log


class LostRows:
    """Keeps the reasons why rows of one producer are lost. Only the aggregator's thread uses this object.

    Parameters
    ----------
    hello:
        The first message of the producer.
    fanout:
        Writes notes into the recording.
    listener:
        Gets the worker's results, for its pool; None if the producer is no worker of a pool.

    Attributes
    ----------
    who:
        A name of the producer for sentences.
    """

    def __init__(self, hello: Hello, fanout: Fanout, listener: Listener | None) -> None:
        self._hello = hello
        self._fanout = fanout
        self._listener = listener
        self.who: str = describe_process(hello.worker, hello.pid)
        # The reason why no result of the producer counts any more; None if they count.
        self._failure: BaseException | None = None
        # The number of the last delivery (`Sync`) that was answered.
        self._last_sync = 0
        # The last loss of a producer that goes on after it: the fields `failure` and `until` of `Synced`.
        self._loss = ("", 0)

    @property
    def failure(self) -> BaseException | None:
        """The error that every further result of the producer gets as its outcome; None if there is no such error."""
        return self._fanout.failure or self._failure

    def answer(self, number: int) -> Synced:
        """Return the answer to `Sync` number `number`. The answer says if rows are lost, and of which tasks."""
        self._last_sync = number
        failure = self.failure
        return Synced(number, *self._loss) if failure is None else Synced(number, str(failure), NO_END)

    def report(self, reason: str, *, goes_on: bool) -> None:
        """Log `reason`, which says why rows of the producer are lost, and write it into the recording.

        All further results of a worker then fail, and its pool replaces it. For a process that has joined, `goes_on`
        decides: if true, only tasks that have begun fail; if false, all later ones fail, too.
        """
        if goes_on and not self._hello.worker:
            self._loss = (reason, self._last_sync + 1)
        else:
            self._failure = self._failure or DeliveryError(reason)
        _log.error("%s", reason)
        self._fanout.note([reason])
        if self._listener is not None:
            hear(self._listener.unfit, self._hello)

    def report_undelivered(self, message: Undelivered) -> None:
        """Log the reason in `message`, and write it into the recording.

        If `message.rows_are_lost`, all further results of the producer fail if it is a worker. If it is another
        process, each further `Synced` says that rows are lost.
        """
        if message.rows_are_lost:
            self._failure = DeliveryError(message.reason)
        _log.log(logging.ERROR if message.rows_are_lost else logging.WARNING, "mpr: %s", message.reason)
        self._fanout.note([message.reason])
