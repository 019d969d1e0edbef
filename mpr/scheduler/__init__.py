"""Decides which worker runs which task, and what the death of a worker means for its tasks.

`dispatcher` takes calls, `worker_events` takes the reports of the aggregator, and `deadlines` looks at the clock. All
three change the shared state of the pool in `books`, under one lock. `outcomes` unpickles the results of tasks and
calls the callbacks of a user, because both may raise anything.

Covers: work items, assignment, retries, deadlines, starting and replacing workers.
Does not cover: rows (`aggregator`) and the results that a user holds (`pool`).
May import: transport, processes, rrd, aggregator.
"""
