"""Brings the rows of a process into a recording: of a worker, of a process that has joined, of the parent itself.

```
rr.log ─► router ─► log_counters ─► outbox_writer (waits for credit) ─► announcer ─► aggregator
result ─► producer ─► announcer ─► result_sender (behind its rows) ─► aggregator
```

Covers: the functions that a logging call passes, the outbox and its credit, results, joining and leaving.
Does not cover: which task runs (`worker`, `tasks`) and the way of the bytes in the parent (`aggregator`).
May import: sdk, transport, rrd.
"""
