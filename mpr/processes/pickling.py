"""Pickles values for another process, with protocol 5 and large buffers apart. Uses cloudpickle if pickle fails.

Pickle is tried first, because it sends importable functions by name, as `multiprocessing` does. So an initializer and
a task of one module share the globals of that module. Lambdas, closures and functions of a notebook are sent by value.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mpr.processes.main_module import workers_import_main
from mpr.transport.packing import Buffer

PICKLE_PROTOCOL = 5


def dumps(value: object) -> list[Buffer]:
    """Return the pickle of `value` and its out-of-band buffers.

    Raises the error of cloudpickle if both pickle and cloudpickle fail.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = pickled(value, buffers)
    return [data, *(buffer.raw() for buffer in buffers)]


def pickled(value: object, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    """Return the pickle of `value`.

    Large buffers are added to `buffers`. If `buffers` is None, large buffers stay in the pickle.
    """
    out_of_band = None if buffers is None else buffers.append
    if workers_import_main():
        try:
            return pickle.dumps(value, PICKLE_PROTOCOL, buffer_callback=out_of_band)
        except Exception:  # noqa: BLE001  # a `__reduce__` may raise anything, and cloudpickle may still succeed
            if buffers:
                buffers.clear()
    from mpr.processes import by_value

    return by_value.dumps(value, PICKLE_PROTOCOL, out_of_band)


def loads(payload: Sequence[Buffer]) -> Any:
    """Return the value in `payload`.

    The sender of `payload` must have proved that it knows the recording's secret, because unpickling can run any code.
    """
    # The buffers are made writable, because arrays use them as memory and are writable with `multiprocessing` too.
    buffers = [bytearray(part) if isinstance(part, bytes) else part for part in payload[1:]]
    return pickle.loads(payload[0], buffers=buffers)  # noqa: S301  # authenticated, see above


class Portable:
    """Holds a value for the arguments of a `Process`, and pickles the value with multiprocessing's pickler.

    If that pickler fails, cloudpickle pickles the value. With the start method `fork` nothing is pickled, because the
    child inherits the value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            # Only the pickler of multiprocessing can send the queues, locks and connections of multiprocessing.
            return _portable, (bytes(ForkingPickler.dumps(self.value, PICKLE_PROTOCOL)),)
        except Exception:  # noqa: BLE001  # as in `pickled`
            from mpr.processes import by_value

            return _portable, (by_value.dumps(self.value, PICKLE_PROTOCOL),)


def _portable(data: bytes) -> Portable:
    return Portable(pickle.loads(data))  # noqa: S301  # from the parent, through multiprocessing's own pipe
