"""Pickles values for another process: with pickle, and with cloudpickle if pickle fails.

cloudpickle is used at once if workers do not import `__main__` (`main_module.py`), for example in a notebook, or if the
caller demands it. It sends functions of `__main__`, lambdas and closures by value, which means with their code. Pickle
sends every function by name, as `multiprocessing` does.

The memory of values that support protocol 5 of pickle, such as arrays of numpy, is not copied into the pickle. It stays
in separate buffers.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mpr.processes.main_module import workers_import_main
from mpr.transport.packing import Buffer

PICKLE_PROTOCOL = 5


def dumps(value: object, *, by_value: bool = False) -> list[Buffer]:
    """Return a list: the pickle of `value`, and after it the buffers of large values, which are not in the pickle.

    If `by_value` is true, cloudpickle is used at once, and pickles classes and functions of `__main__` with their code.
    If cloudpickle fails, raises the error of cloudpickle or of a user's `__reduce__`.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickled(value, buffers, by_value=by_value)
    return [data, *(buffer.raw() for buffer in buffers)]


def pickled(value: object, buffers: list[pickle.PickleBuffer] | None, *, by_value: bool = False) -> bytes:
    """Return the pickle of `value`. The memory of large values, such as arrays, is added to the list `buffers`.

    If `buffers` is None, this memory is copied into the pickle. `by_value` and the error are as in `dumps`.
    """
    out_of_band = None if buffers is None else buffers.append
    if workers_import_main() and not by_value:
        try:
            return pickle.dumps(value, PICKLE_PROTOCOL, buffer_callback=out_of_band)
        except Exception:  # noqa: BLE001  # a `__reduce__` may raise anything, and cloudpickle may still succeed
            if buffers:
                buffers.clear()
    from mpr.processes.by_value import dumps as dump

    return dump(value, PICKLE_PROTOCOL, out_of_band)


class _NotPlainError(Exception):
    """Raised within `dumps_plain` if a value does not consist of built-in types only."""


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        # Python calls this for every object that is not of a built-in type such as `int`, `str`, `list` or `dict`.
        raise _NotPlainError


def dumps_plain(value: object) -> bytes | None:
    """Return the pickle of `value` if it consists of built-in types only, such as `int`, `str` and `list`; else None.

    Also returns None if lists are nested too deeply. No code of a user runs here, or when this pickle is unpickled.
    """
    with io.BytesIO() as file:
        try:
            _PlainPickler(file, PICKLE_PROTOCOL).dump(value)
        except Exception:  # noqa: BLE001  # also a list that is too deep; other code reports that
            return None
        return file.getvalue()


def loads(payload: Sequence[Buffer]) -> Any:
    """Return the value in `payload`, a list that `dumps` has returned.

    Unpickling runs code of the sender, so the sender must have proved that it knows the recording's secret. This
    function may raise any error.
    """
    # The buffers are made writable, because arrays use them as memory and are writable with `multiprocessing` too.
    buffers = [bytearray(part) if isinstance(part, bytes) else part for part in payload[1:]]
    return pickle.loads(payload[0], buffers=buffers)  # noqa: S301  # authenticated, see above


class Portable:
    """Holds a value for the arguments of a `Process`, and pickles the value with the pickler of `multiprocessing`.

    If that pickler fails, cloudpickle pickles the value. With the start method `fork`, nothing is pickled. The child
    unpickles the value when its code reads `value` for the first time, so that this code gets any error.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        # The pickle of the value; None if the value was given, or was unpickled.
        self._data: bytes | None = None

    @classmethod
    def of_pickle(cls, data: bytes) -> Portable:
        """Return an object with the value in the pickle `data`. The value is unpickled when `value` is read."""
        portable = cls(None)
        portable._data = data
        return portable

    @property
    def value(self) -> Any:
        """The value. The first reading in the child may raise any error, because unpickling runs code of the user."""
        if self._data is not None:
            # The data comes from the parent, through a pipe of multiprocessing.
            self._value, self._data = pickle.loads(self._data), None  # noqa: S301  # see above
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            # Only the pickler of multiprocessing can send the queues, locks and connections of multiprocessing.
            return Portable.of_pickle, (bytes(ForkingPickler.dumps(self.value, PICKLE_PROTOCOL)),)
        except Exception:  # noqa: BLE001  # as in `pickled`
            from mpr.processes import by_value

            return Portable.of_pickle, (by_value.dumps(self.value, PICKLE_PROTOCOL),)
