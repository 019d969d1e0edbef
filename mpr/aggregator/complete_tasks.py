"""Remembers which tasks of other engines are complete: every durable sink has all their rows.

An engine such as Ray or Dask may run a complete task again, because its result was lost. So a process asks the parent
if a task is complete before it runs the task. If the task is complete, the rows of this run are dropped. A *key* is a
hash that identifies a task of an engine (`tasks/engine_task.py`). The *key filter* is memory in which a process sees,
without a question, that a task is certainly not complete (`transport/key_filter.py`).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mpr.transport.key_filter import KeyFilter
from mpr.transport.messages import KEY_BYTES, Hello, KeyAnswer, KeyWanted
from mpr.user_code import log as _log

# The number of bytes of a key that choose its bucket. With 65,536 buckets, a million tasks leave 15 keys in each.
_BUCKET_BYTES = 2
_REST_BYTES = KEY_BYTES - _BUCKET_BYTES


class CompleteTasks:
    """Holds the keys of the complete tasks of one recording. Only the aggregator's thread calls the methods.

    A million keys take about 33 MB. A `set` of the same keys takes three times as much.

    Parameters
    ----------
    folder:
        The private folder of the recording.

    Attributes
    ----------
    repeated:
        How many times engines have run a complete task again.
    """

    def __init__(self, folder: Path) -> None:
        self.repeated: int = 0
        self._folder = folder
        #: The memory in which processes see which tasks are not complete; None if it was not needed or cannot be made.
        self._filter: KeyFilter | None = None
        self._has_no_filter = False
        # The rests of the keys in each bucket, one behind another.
        self._buckets: defaultdict[bytes, bytearray] = defaultdict(bytearray)

    def add(self, keys: bytes) -> None:
        """Remember that the tasks with these keys are complete. `keys` has one or several keys of `KEY_BYTES` each."""
        for start in range(0, len(keys), KEY_BYTES):
            key = keys[start : start + KEY_BYTES]
            if key not in self:
                self._buckets[key[:_BUCKET_BYTES]] += key[_BUCKET_BYTES:]
                if self._filter is not None:
                    self._filter.add(key)

    def key_filter(self, hello: Hello) -> str:
        """Return the address of the key filter for the process of `hello`. Makes the filter if there is none yet.

        Returns "" for a worker of a pool, which runs no tasks of engines. Also returns "" if no filter can be made, and
        after `close`.
        """
        if hello.worker:
            return ""
        if self._filter is None and not self._has_no_filter:
            try:
                self._filter = KeyFilter(self._folder)
            except (OSError, ValueError):
                self._has_no_filter = True
        return "" if self._filter is None else self._filter.address

    def close(self) -> None:
        """Close the key filter, if there is one."""
        if self._filter is not None:
            self._filter.close()
            self._filter = None
            self._has_no_filter = True

    def __contains__(self, key: bytes) -> bool:
        bucket = self._buckets.get(key[:_BUCKET_BYTES], b"")
        at = bucket.find(key[_BUCKET_BYTES:])
        while at % _REST_BYTES and at >= 0:
            # These bytes are the end of one key and the beginning of the next one.
            at = bucket.find(key[_BUCKET_BYTES:], at + 1)
        return at >= 0

    def answer(self, question: KeyWanted) -> KeyAnswer:
        """Return the answer to `question`, which asks if a task is complete. If it is, count a repeated run."""
        return KeyAnswer(question.number, self._is_repeated(question.key))

    def _is_repeated(self, key: bytes) -> bool:
        """Return True if the task with this key is complete. Then count a repeated run, and log a warning once."""
        is_complete = key in self
        if is_complete:
            self.repeated += 1
            if self.repeated == 1:
                _log.warning(
                    "An engine runs a task again whose rows are all in the recording, for example because the result "
                    "was lost. The rows of this run, and of later such runs, are left out. `stats().repeated_tasks` "
                    "counts these runs."
                )
        return is_complete
