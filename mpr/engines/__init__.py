"""Lets another engine (Ray, Dask, or any `concurrent.futures.Executor`) run the tasks of an `mpr.Pool`.

```
mpr.Pool(engine=...) ── work items ──► EngineDispatcher ── chunks ──► Engine ──► the engine's own workers
                                             ▲                                       │ run_chunk
                                             └─────────────── answers ◄──────────────┘
                                      (rows come to the aggregator before the answer)
```

A work item is one or several tasks. A *chunk* is a work item in the form in which an engine gets it: one call of
`run_chunk` with picklable arguments. An *answer* has the outcomes of the tasks of one chunk. The engine decides which
of its workers runs a chunk, and when. `run_chunk` joins the recording, and runs the tasks. It returns when every
durable sink (such as a file) has the rows of these tasks.

Covers: which engine a user means, submitting chunks to it, running a chunk in its workers, and the outcomes of tasks.
Does not cover: the calls of a pool and their results (`pool`), functions that users give to an engine themselves
(`tasks/wrapped.py`), and scheduling, retries and resources, which are the engine's.
May import: transport, processes, producer, tasks, scheduler.
"""
