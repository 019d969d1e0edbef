"""Receives rows and results in the parent process. Hands rows to the sinks, and then results to the pools.

```
upstream socket ─► aggregator ─► intake ─► outbox_intake ─► fanout ─► sinks
                                   └────── results ───────► listener (the pool's scheduler)
```

A *producer* is a process that logs: a worker, a process that has joined, or the parent itself.

Covers: the rows and results of each producer, the fan-out to all sinks, the end of a producer.
Does not cover: tasks and retries (`scheduler`), and what a sink does with the rows (`sinks`).
May import: transport, rrd, sinks.
"""
