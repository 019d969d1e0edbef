"""Starts processes, and pickles functions, arguments and results for them.

| start method | the process that makes a worker | a worker starts with | file |
|---|---|---|---|
| `forkserver` | a server that was started once and has imported `rerun` | these imports, `__main__` | `forkserver.py` |
| `spawn` | the parent, which starts a new interpreter for each | `__main__`, imported again | `launcher.py` |
| `fork` | a zygote, forked in `Pool()` before mpr starts any thread | all that the parent had then | `zygote.py` |

Covers: start methods (`start.py` chooses one), ending workers whose parent has ended, the main module, pickling.
Does not cover: how many workers there are and what they do (`scheduler`, `worker`).
May import: transport.

A function is pickled *by name* if the worker imports it, and *by value* if the pickle has the code of the function.
`shared` is a value that all workers of a launcher get. A worker's `config` is its own.

A launcher starts workers by one start method. A sentinel (a word of `multiprocessing`) is a descriptor that becomes
readable when a process has ended. The parent is the process that has the launcher.
"""
