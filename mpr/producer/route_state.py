"""Holds the state of the process, and of each thread, by which `router.py` routes the calls of the SDK.

The docstring of `router.py` explains the words.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from mpr.producer.made_recordings import MadeRecordings
from mpr.producer.run_calls import RunCalls

if TYPE_CHECKING:
    from mpr.producer.routed import RoutedProducer, RoutedTask, Routes
    from mpr.producer.row_account import RowAccount
    from mpr.sdk.recordings import Ids
    from mpr.sdk.times import Times


class ProcessRoutes:
    """Holds the state of the process. `producer` gets every plain logging call; it is None if no producer does."""

    producer: RoutedProducer | None = None
    #: The row account of `producer`; None if it is not certain to which recording a thread logs.
    account: RowAccount | None = None
    #: The routes to put back when a capture (see `capture`) ends; None if there is no capture.
    before: Routes | None = None
    #: Threads that were started during a capture that has ended. They may go on to log.
    left_threads: ClassVar[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()
    #: Makes the process join at its first logging call, at the latest. None if `mpr run` has not started the process.
    lazy: Callable[[], object] | None = None
    #: Held while a thread joins, so that rows of other threads wait until the process has joined.
    joining: threading.Lock = threading.Lock()
    #: The producers for which `guard` was called, by the ids of their recordings.
    guarded: ClassVar[dict[Ids | None, RoutedProducer]] = {}
    sinks_watched: bool = False
    made: MadeRecordings = MadeRecordings()
    run: RunCalls = RunCalls()
    #: The message to log once for rows that no producer takes.
    lost_rows: str | None = None
    times_installed: bool = False
    entries_installed: bool = False
    taken_over: bool = False
    current_is_watched: bool = False
    #: The SDK's handle of the recording to which threads log that have chosen no other; None if not known.
    default_current: Any = None
    #: The handle of the recording to which new threads log; None if not known. It is known only in a worker.
    current_of_new_threads: Any = None
    #: The logging functions of the SDK that mpr wraps, but that this release of the SDK does not have.
    missing: tuple[str, ...] = ()


#: The state of this process. Only `router.py` changes it.
process: ProcessRoutes = ProcessRoutes()


class ThreadRoute(threading.local):
    """Holds the state of the calling thread: its task, the times that were set, and its current recording."""

    def __init__(self) -> None:
        self.context: RoutedTask | None = None
        #: The times that were set, by the ids of the recording.
        self.times: dict[Ids, Times] = {}
        #: Whether this thread joins for the whole process at this moment. If so, mpr itself makes its SDK calls.
        self.joins: bool = False
        #: The SDK's handle of the recording that is certainly current in this thread; None if that is not known.
        self.current: Any = process.current_of_new_threads


#: The state of the calling thread.
thread_state: ThreadRoute = ThreadRoute()
