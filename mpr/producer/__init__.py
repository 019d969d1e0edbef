"""Sends the rows of a process into a recording. The process is a worker, has joined the recording, or is the parent.

```
rr.log ─► router ─► log_counters ─► outbox_writer (waits for credit) ─► announcer ─► aggregator
result ─► producer ─► announcer ─► result_sender (after the result's rows) ─► aggregator
```

The names in this picture are modules of this package. Only `aggregator` is another package; it runs in the parent.

The words of this package:

- *parent*: the process that has made the recording. It hands the rows to the sinks.
- *producer*: a process that sends rows into a recording, and the `Producer` object that does so in this process.
- *worker*: a process of an `mpr.Pool`.
- *current recording*: the recording that gets a logging call without an argument `recording`.
- *plain*: a logging call is plain if it has no argument `recording`, and if user code has not chosen another recording
  as the current one of the calling thread.
- *connection info*: the values that a process needs to join a recording, also as a text. One of them is the *secret*, a
  random text that no other recording has.
- *outbox*: a file in memory. The SDK writes the rows of this process into it, and the parent gets them from there.
- *credit*: the number of bytes that may still be written into the outbox. Without credit, `rr.log` waits.
- *flush*: make the SDK write the rows that it still holds in its own memory.
- *announce*: tell the parent how many bytes of the outbox were written.
- *deliver*: flush, announce, and wait until every durable sink (such as a file) has all rows.
- *manifest*: the list of the chunks of rows in an outbox. The SDK writes it at the end of the outbox.
- *status page*: a page of counters in memory. On Linux, the parent can read it even after the death of this process.
- *journal*: memory with the last results of a worker. On Linux, the parent can read it even after the worker's death.
- *spent*: a process is spent if it can send no more rows to the recording, for example because a flush has failed.
- *gone*: a recording is gone if it was closed, or if its parent has ended.
- *task recording*: a recording that a task makes itself, such as an `rr.RecordingStream`.
- *handle*: the object of the SDK's native module for a recording.
- *ids*: the application id and the recording id of a recording.
- *engine*: a program that runs tasks in place of a pool, such as Ray or Dask. An *engine task* is such a task.

Covers: the functions that a logging call invokes, the outbox and its credit, results, joining and leaving.
Does not cover: which task runs (`worker`, `tasks`) and what the parent does with the bytes (`aggregator`).
May import: sdk, transport, rrd.
"""
