"""Starts processes, and pickles functions, arguments and results for them.

| start method | the process that makes a worker | a worker starts with | file |
|---|---|---|---|
| `forkserver` | a server that has imported `numpy` and, with `preload`, `rerun` | these, `__main__` | `forkserver.py` |
| `spawn` | the parent, which starts a new interpreter for each | `__main__`, imported again | `launcher.py` |
| `fork` | a zygote, forked in `Pool()` before this pool starts threads | all that the parent had then | `zygote.py` |

Without `preload`, workers import `rerun` themselves. Whether a worker imports `__main__` depends on the kind of program
(`main_module.py`).

Covers: start methods (`start.py` chooses one), ending workers whose parent has ended, the main module, pickling.
Does not cover: how many workers there are and what they do (`scheduler`, `worker`).
May import: transport.

The words of this package:

- *parent*: the process that has the launcher.
- *launcher*: an object that starts workers by one start method. `config` is the value that only one worker gets;
  `shared` is the value that all workers of the launcher get.
- *server*: a process that forks workers: a fork server or a zygote. A *zygote* is a server without threads, which the
  parent has forked.
- *sentinel*: a descriptor that becomes readable when a process has ended, as in `multiprocessing`. A fork server also
  writes the process id into it when it has forked the process.
- *by name, by value*: a function is pickled by name if the worker imports it, and by value if the pickle has its code.
- *buffer*: the memory of a large value, such as an array, that is sent beside the pickle and is not copied into it.
"""
