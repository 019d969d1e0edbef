"""The last module that a fork server imports: what is there now is shared with every worker.

Frozen objects are left alone by the garbage collector. Its first run in a worker would otherwise write to every object
that came with the fork, and so copy the memory of all of them.
"""

# ruff: noqa: F401  # imported for their side effect: what a starting worker uses, `runpy` for the main script
import gc
import multiprocessing.popen_fork
import pkgutil
import runpy

import mpr.pickling
import mpr.processes
import mpr.transport
import mpr.worker_config

gc.collect()
gc.freeze()
