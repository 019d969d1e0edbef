"""Receives rows and results in the parent process. Hands rows to the sinks, and then results to the pools.

The parent is the process with the recording and its sinks. A sink keeps or shows rows: it is, for example, a file or a
viewer.

```
upstream socket ─► aggregator ─► intake ─► outbox_intake ─► fanout ─► sinks
                                   └────── results ───────► listener (the pool's scheduler)
```

These words have the same meaning in all modules of this package:

- Producer: a process that logs. It is a worker, another process that has joined the recording, or the parent itself.
- Hello and goodbye: the first and the last message of a producer (`transport/messages.py`).
- Outbox: a file in memory, into which a producer writes its rows, and from which the parent reads them
  (`transport/outbox.py`). A producer fills one or more outboxes, one after another. The first one has the number 0.
- To announce: to send the message `SegmentReady`. It says up to which byte the producer has written an outbox.
- Inline: the parent cannot open the outboxes of the producer, so their bytes come in messages.
- Chunk, frame, manifest, footer and segment: parts of a Rerun stream (`rrd/__init__.py`).
- Shared recording: the recording into which all producers log. A task may make other recordings itself.
- Intake: the object in the parent that processes the messages and the rows of one producer.
- Listener: the object in the parent that gets the results of a worker, for its pool.
- Status page: memory in which a producer counts its rows, and a worker names the task that it runs. On Linux, the
  parent can read it (`transport/status_page.py`).
- Journal: memory in which a worker keeps its last results. On Linux, the parent can read it even if the worker has died
  (`transport/result_journal.py`).
- To reap a dead worker: to pass the rows and results that it has left to the sinks and the listener, and to report its
  end to the listener.
- To cut off a producer: to use nothing more that it sends, because its bytes are damaged.
- Durable sink: a sink, such as a file, that has all rows of a task before the pool gets the result of the task.
- Live sink: a sink, such as a viewer, that may get the rows of a task later than the pool gets the result.

Covers: the rows and results of each producer, the fan-out to all sinks, the end of a producer.
Does not cover: tasks and retries (`scheduler`), and what a sink does with the rows (`sinks`).
May import: transport, rrd, sinks.
"""
