"""Which worker runs which task, and what the death of a worker means for its tasks.

Covers: work items, assignment, retries, deadlines, starting and replacing workers.
Does not cover: rows (`aggregator`) and what a user holds in hand (`pool`).
May import: transport, processes, rrd, aggregator.
"""
