"""Defines the interfaces of a producer and of a task that `router.py` uses, and the class `Routes`.

`router.py` cannot import the two classes themselves, because their modules import `router.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import rerun as rr

    from mpr.producer.log_counters import LogCounters
    from mpr.producer.notices import Notices
    from mpr.producer.row_account import RowAccount
    from mpr.producer.task_recordings import TaskRecordings
    from mpr.sdk.log_calls import Prefix
    from mpr.sdk.recordings import Ids
    from mpr.sdk.settings import ChangedSettings


class RoutedProducer(Protocol):
    """The attributes and methods of `producer.Producer` and `muted.MutedProducer` that `router.py` uses."""

    @property
    def stream(self) -> rr.RecordingStream: ...

    @property
    def log_counters(self) -> LogCounters: ...

    @property
    def row_account(self) -> RowAccount: ...

    def sink_changed(self, call: str) -> None: ...

    def write_out(self) -> int: ...

    @property
    def notices(self) -> Notices: ...

    @property
    def ids(self) -> Ids: ...

    @property
    def settings(self) -> ChangedSettings | None: ...

    @property
    def task_recordings(self) -> TaskRecordings: ...


class RoutedTask(Protocol):
    """The members of `tasks.context.TaskContext` that `router.py` uses."""

    producer: Any
    is_muted: bool
    prefix: Prefix | None
    settings: ChangedSettings

    @property
    def ids(self) -> Ids | None: ...

    def note_global(self, handle: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Routes:
    """Stores where the process logged before a capture (`process_capture.py`).

    Attributes
    ----------
    producer, account:
        The producer that got every plain logging call, and its row account; None if there was none.
    default_current:
        The handle of the recording to which threads logged that had chosen no recording; None if mpr did not know it.
    recording:
        The handle of the process's current recording, as the SDK has returned it; None if there was none.
    """

    producer: RoutedProducer | None
    account: RowAccount | None
    default_current: Any
    recording: Any
