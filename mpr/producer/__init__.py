"""Sends the rows of a process into a recording. The process is a worker, has joined, or is the parent itself.

```
rr.log ─► router ─► log_counters ─► outbox_writer (waits for credit) ─► announcer ─► aggregator
result ─► producer ─► announcer ─► result_sender (after its rows) ─► aggregator
```

The *credit* is the number of bytes that the outbox may still take.

Covers: the functions that a logging call invokes, the outbox and its credit, results, joining and leaving.
Does not cover: which task runs (`worker`, `tasks`) and what the parent does with the bytes (`aggregator`).
May import: sdk, transport, rrd.
"""
