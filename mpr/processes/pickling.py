"""How tasks, results and exceptions travel: pickle protocol 5 with large buffers apart, cloudpickle where it must be.

Plain pickle comes first, so that what can be imported is imported, as in `multiprocessing`: an initializer and a task
of one module then share that module's globals. Lambdas, closures and what a notebook defines go by value.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mpr.processes.main_module import workers_import_main
from mpr.transport.messages import Buffer

PICKLE_PROTOCOL = 5


def dumps(value: object) -> list[Buffer]:
    """`value` as a pickle and its out-of-band buffers; raises what pickle raises where neither pickler can."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickled(value, buffers)
    return [data, *(buffer.raw() for buffer in buffers)]


def pickled(value: object, buffers: list[pickle.PickleBuffer] | None) -> bytes:
    """The pickle of `value`, which has its large buffers in itself where `buffers` is None."""
    out_of_band = None if buffers is None else buffers.append
    if workers_import_main():
        try:
            return pickle.dumps(value, PICKLE_PROTOCOL, buffer_callback=out_of_band)
        except Exception:  # noqa: BLE001  # any error of any `__reduce__`: cloudpickle may still know a way
            if buffers:
                buffers.clear()
    from mpr.processes import by_value

    return by_value.dumps(value, PICKLE_PROTOCOL, out_of_band)


def loads(payload: Sequence[Buffer]) -> Any:
    """The value in `payload`, which comes from a process that has shown the recording's secret."""
    # Arrays are made on these buffers, and who gets one may write to it, as `multiprocessing` has it.
    buffers = [bytearray(part) if isinstance(part, bytes) else part for part in payload[1:]]
    return pickle.loads(payload[0], buffers=buffers)  # noqa: S301  # authenticated, see above


class Portable:
    """A value for a `Process`'s arguments that goes by cloudpickle where multiprocessing's pickler cannot take it.

    Under fork nothing is pickled, and the value is simply there.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            # With multiprocessing's pickler, so that its queues, locks and connections can be arguments.
            return _portable, (bytes(ForkingPickler.dumps(self.value, PICKLE_PROTOCOL)),)
        except Exception:  # noqa: BLE001  # as in `dumps`
            from mpr.processes import by_value

            return _portable, (by_value.dumps(self.value, PICKLE_PROTOCOL),)


def _portable(data: bytes) -> Portable:
    return Portable(pickle.loads(data))  # noqa: S301  # from the parent, through multiprocessing's own pipe
