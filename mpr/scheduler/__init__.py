"""Decides which worker runs which task, and what the death of a worker means for its tasks.

`dispatcher` takes calls, `worker_events` what the aggregator reports, `deadlines` looks at the clock. All three work on
the `books` of the pool, under one lock. `user_code` is the one door through which code of a user runs in their threads.

Covers: work items, assignment, retries, deadlines, starting and replacing workers.
Does not cover: rows (`aggregator`) and the results that a user holds (`pool`).
May import: transport, processes, rrd, aggregator.
"""
