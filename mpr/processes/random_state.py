"""Gives generators of random numbers a new state in each forked worker, because a fork copies their states.

Without this, all workers would draw the same numbers.

A worker finds these generators after a fork:

| generator | after a fork |
|---|---|
| `random` | CPython seeds it again from the system |
| `uuid.uuid4`, `secrets`, `numpy.random.default_rng()` | have no state: they ask the system at each call |
| names of `tempfile` | `tempfile` makes a new generator in each process |
| `numpy.random` (its global generator) | this module gives it a new state |
| `uuid.uuid1` | this module lets it work without libuuid, if the module is imported already |
| generators of the program (`fork` only) | are copies, as in `multiprocessing`; see `docs/troubleshooting.md` |
| Rerun's ids of rows (`fork` only) | the counter in them is a copy, but the time in them (ns) is not |

A zygote forks the workers of a pool with `fork`. A fork server forks the workers of a pool with `forkserver`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import sys
from typing import Any, Final

# Numbers the zygotes of this process, one for each pool with `fork`. Without these numbers, the workers of two pools
# would draw equal numbers, unless the program draws a number between the two pools.
zygotes: Final = itertools.count()


class _ServerState:
    """Holds the process id of the fork server in which this module runs; None in any other process."""

    pid: int | None = None


_server = _ServerState()


def renew_in_children() -> None:
    """From now on, give numpy's global generator a random state in each child of this fork server.

    Each child also uses Python's own algorithm for `uuid.uuid1`. Both changes happen before the child imports the main
    script, so a seed that the main script sets on import is not lost.
    """
    if _server.pid is None:
        # The hook is registered only once, because it cannot be removed.
        os.register_at_fork(after_in_child=_renew_once)
    _server.pid = os.getpid()


def _renew_once() -> None:
    # A child of the server may fork, too. Its children keep the copied state, because the child may have chosen a seed.
    if _server.pid == os.getppid():
        _set_state(None)
        _leave_libuuid()
    _server.pid = None


def derive(*place: int) -> None:
    """Change the state of numpy's global generator and of `uuid.uuid1`, if their modules are imported.

    The new state of numpy's generator depends only on the old one and on `place`. `place` must differ for each
    worker, so that no two workers draw the same numbers. If a program has set a seed, a worker draws the same numbers
    in each run.
    """
    _leave_libuuid()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        state = pickle.dumps(numpy_random.get_state(legacy=False))
        _set_state(int.from_bytes(hashlib.blake2b(state).digest(), "big"), place)


def _leave_libuuid() -> None:
    """Let `uuid.uuid1` use the algorithm of Python itself in this process.

    libuuid keeps processes apart by a lock on a file. Forked processes share this lock. If their parent had used
    libuuid, two processes that drew 20,000 numbers each had up to 1,398 in common (measured).
    """
    uuid: Any = sys.modules.get("uuid")
    if uuid is not None:
        uuid._generate_time_safe = None


def _set_state(entropy: int | None, place: tuple[int, ...] = ()) -> None:
    """Give numpy's global generator a state that depends only on `entropy` and `place`.

    If `entropy` is None, the state depends on random numbers from the operating system. Does nothing if `numpy.random`
    is not imported.
    """
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is None:
        return
    # The program may have chosen another kind of generator, so this makes a new one of the same kind.
    kind = type(numpy_random.get_bit_generator())
    state = kind(numpy_random.SeedSequence(entropy, spawn_key=place)).state
    numpy_random.set_state({**state, "has_gauss": 0, "gauss": 0.0})
