"""Starts processes, and pickles functions, arguments and results for them.

| start method | the process that makes a worker | a worker starts with | file |
|---|---|---|---|
| `forkserver` | a server, started once, that has imported `rerun` | those imports and `__main__` | `forkserver.py` |
| `spawn` | the parent, with a new interpreter each | `__main__`, imported anew | `launcher.py` |
| `fork` | a zygote, forked in `Pool()` before any thread of mpr's exists | all that the parent had then | `zygote.py` |

Covers: start methods (`start.py` chooses one), the guard against orphans, the main module, pickling.
Does not cover: how many workers there are and what they do (`scheduler`, `worker`).
May import: transport.
"""
