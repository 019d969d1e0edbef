"""Gives each task that no pool runs its index, a number that no other such task of the recording has.

Covers: tasks that no pool has submitted, in every process of a recording.
Does not cover: the index of a pool's task, which comes with the task (`scheduler/work_item.py`).

The parent counts the tasks of a recording (`aggregator/numbers.py`). It takes each index of its own tasks directly from
this count. Any other process asks the parent when a task begins and no index is left. It asks for one index at first,
and then for 2, 4 and more at a time, up to `_AT_ONCE_MAX`:

```
1st task   ─► IndicesWanted(1) ─► parent ─► Indices(0, 1)
2nd task   ─► IndicesWanted(2) ─► parent ─► Indices(5, 2)     other processes have got 1 to 4 meanwhile
```

If no index is left and a signal handler runs a task while no answer can arrive, the index is a large number instead:
the number of the process times 2^32, plus a count. If a process ends before it has used its indices, no task gets them.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from mpr.threads import aside
from mpr.transport.messages import Indices, IndicesWanted

# The most indices that a process asks for at once. An answer takes about 0.3 ms, so a task waits 5 us on average.
_AT_ONCE_MAX = 64


class TaskIndices:
    """Keeps the indices that one producer has got from the parent and has not given to a task yet.

    Any thread may call the methods.

    Parameters
    ----------
    ask:
        `ask(question, have_come)` sends the message `question`, and waits until `have_come()` returns True.
    is_interrupted:
        `Inbox.is_interrupted`: a function that returns True if no answer may arrive before the calling code returns.
    number:
        A function that returns the number of this process in the recording.
    own_next:
        A function that returns the next index, in the parent; None in any other process.
    """

    def __init__(
        self,
        ask: Callable[[IndicesWanted, Callable[[], bool]], None],
        is_interrupted: Callable[[], bool],
        number: Callable[[], int],
        own_next: Callable[[], int] | None = None,
    ) -> None:
        self._ask = ask
        self._is_interrupted = is_interrupted
        self._number = number
        self._without_asking = itertools.count()
        self._own_next = own_next
        # Without a lock, because threads may add to one end and take from the other end at any time.
        self._free: deque[int] = deque()
        self._next_count = 1

    def next(self) -> int:
        """Return an index that no other task outside of pools has in this recording. May wait for the parent's answer.

        Raises `RecordingClosedError` if the recording is closed, and `DeliveryError` if the parent does not answer.
        """
        if self._own_next is not None:
            return self._own_next()
        while True:
            try:
                return self._free.popleft()
            except IndexError:
                if self._is_interrupted():
                    return (self._number() << 32) + next(self._without_asking)
                # Aside, because a handler of a signal may interrupt the wait, and begin a task itself.
                aside(self._request)

    def _request(self) -> None:
        count = self._next_count
        self._next_count = min(2 * count, _AT_ONCE_MAX)
        self._ask(IndicesWanted(count), lambda: bool(self._free))

    def take(self, message: Indices) -> None:
        """Keep the indices in the parent's answer `message`, for later calls of `next`."""
        self._free.extend(range(message.first, message.first + message.count))
