"""Decides which worker runs which task, and what the death of a worker means for its tasks.

`dispatcher` takes calls, `worker_events` takes the reports of the aggregator, and `deadlines` looks at the clock. All
three change the shared state of the pool in `books`, under one lock. `outcomes` unpickles the results of tasks and
calls the callbacks of a user, because both may raise anything.

The docstrings of this package use these words:

- A work item is one task, or several tasks of one call, that a worker gets in one message.
- The outcome of a task is its result or its error. A task is settled when it has its outcome.
- A worker is ready when it can take tasks. Its hello, the first message of a worker, has its number and process id.
- The status page of a worker is memory that worker and parent share. It says at which task the worker is.
- An observer only hears of tasks and workers: it is a progress bar, or writes telemetry.

Covers: work items, assignment, retries, deadlines, starting and replacing workers.
Does not cover: rows (`aggregator`) and the results that a user holds (`pool`).
May import: transport, processes, rrd, aggregator.
"""
