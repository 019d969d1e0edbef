"""The receiving end in the parent: hands rows to the sinks first, and results to the pool after them.

```
upstream socket ─► aggregator ─► intake ─► outbox_intake ─► fanout ─► sinks
                                   └────── results ───────► listener (the pool's scheduler)
```

Covers: one producer's rows and results, the fan-out to all sinks, the end of a producer.
Does not cover: tasks and retries (`scheduler`), and what a sink does with the rows (`sinks`).
May import: transport, rrd, sinks.
"""
