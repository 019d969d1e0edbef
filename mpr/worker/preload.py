"""The last module that a fork server imports: what is there now is shared with every worker.

Frozen objects are left alone by the garbage collector. Its first run in a worker would otherwise write to every object
that came with the fork, and so copy the memory of all of them.
"""

from __future__ import annotations

# ruff: noqa: F401  # imported for their side effect: what a starting worker uses, `runpy` for the main script
import contextlib
import gc
import multiprocessing.popen_fork
import pkgutil
import runpy
import signal
import sys

import mpr.processes.launcher
import mpr.processes.pickling
import mpr.transport.sockets
import mpr.worker.config

if "rerun" in sys.modules:
    # The first archetypes of a process make NumPy and the SDK import and build things for 20 ms.
    import numpy
    import rerun

    # Without it, the first task pays; with an error here, there would be no worker at all.
    with contextlib.suppress(Exception):
        rerun.Scalars(0.0).as_component_batches()
        rerun.Image(numpy.zeros((1, 1, 3), numpy.uint8)).as_component_batches()

# The server hears by it of the ends of its children; who starts it may hold signals back, as `mpr run` does.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})

gc.collect()
gc.freeze()
