"""Prepares a fork server for forking workers. This module is the server's last import.

A worker shares the memory that the server has when it forks the worker. The module freezes the objects that exist at
its import, so that the garbage collector of a worker does not write to them. A write makes the system copy a page of
the memory for the worker.
"""

from __future__ import annotations

# ruff: noqa: F401  # imported because a starting worker uses them; `runpy` runs the main script
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
from mpr.processes import random_state

if "rerun" in sys.modules:
    # Make archetypes here, because the first ones of a process take 20 ms: modules are imported, and tables are built.
    import numpy
    import rerun

    # If this fails, only the first task is slower. But an error that leaves this module would end every worker.
    with contextlib.suppress(Exception):
        rerun.Scalars(0.0).as_component_batches()
        rerun.Image(numpy.zeros((1, 1, 3), numpy.uint8)).as_component_batches()

# Unblock these signals, because the server learns by SIGCHLD that a child has ended. The server's parent may have
# blocked them, as `mpr run` does.
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM})

# Without this, all workers would draw the same random numbers.
random_state.renew_in_children()

gc.collect()
gc.freeze()
