"""Provides `mpr.Pool`: the user's calls, the results, and the start and end of all parts of a pool.

Covers: the user's calls (`pool.py`, `maps.py`, `executor.py`, `awaiting.py`), the work items of each call (`calls.py`,
`imap.py`), results, checks of arguments (`options.py`), the start of all parts and the order in which they end
(`runtime.py`, `worker_runtime.py`, `engine_runtime.py`).
Does not cover: which worker runs which task (`scheduler`), and where rows go (`recording`).
May import: transport, processes, rrd, worker, scheduler, engines, telemetry, recording.

```
user ─ call ─► Pool ─► PoolCalls ─ work items ─► dispatcher (scheduler) ─► worker
user ◄─ result ─ AsyncResult, ResultIterator or TaskFuture ◄─ outcomes ─ dispatcher
```

A task is one call of a function in a worker. A work item is one or several tasks that a worker gets in one message,
such as a chunk of a map (`chunksize`). The dispatcher (`scheduler/dispatcher.py`) gives work items to workers. The
outcome of a task is its result or its error. Telemetry is what a pool logs about its workers and tasks.
"""
