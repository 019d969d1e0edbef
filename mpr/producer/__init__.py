"""Sends the rows of a process into a recording. The process is a worker, has joined, or is the parent itself.

```
rr.log ─► router ─► log_counters ─► outbox_writer (waits for credit) ─► announcer ─► aggregator
result ─► producer ─► announcer ─► result_sender (after its rows) ─► aggregator
```

The words of this package:

- *parent*: the process that has made the recording. It hands the rows to the sinks.
- *outbox*: a file in memory. The SDK writes the rows of this process into it, and the parent reads them there.
- *credit*: the number of bytes that the outbox may still take. Without credit, `rr.log` waits.
- *flush*: have the SDK write the rows that it still holds in its own memory.
- *announce*: tell the parent how many bytes of the outbox were written. The parent reads only these bytes.
- *deliver*: flush, announce, and wait until every durable sink (such as a file) has all rows.
- *manifest*: the list of the chunks of rows in an outbox. The SDK writes it at the end of the outbox.
- *status page*: a page of counters in memory, which the parent can read even after the death of this process.
- *spent*: a process that can bring no more rows to the recording is spent, for example because a flush has failed.
- *gone*: a recording is gone if it was closed, or if its parent has ended.
- *task recording*: a recording that a task makes itself, such as an `rr.RecordingStream`.
- *handle*: the object of the SDK's native module for a recording.

Covers: the functions that a logging call invokes, the outbox and its credit, results, joining and leaving.
Does not cover: which task runs (`worker`, `tasks`) and what the parent does with the bytes (`aggregator`).
May import: sdk, transport, rrd.
"""
