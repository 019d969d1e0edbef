"""Connects two processes by messages, sockets and shared memory. Only this package uses ZeroMQ.

```
producer                                                              parent
sockets.Connection ── upstream messages ────────────────────────────► sockets.UpstreamServer
sockets.Connection ◄── downstream messages ────────────────────────── sockets.DownstreamServer
outbox, status_page, result_journal ── shared memory ───────────────► their readers
```

The parent is the process with the recording and its sinks. These words have the same meaning in all modules:

- Producer: a process that logs. It is a worker, another process that has joined the recording, or the parent itself.
- Upstream: from a producer to the parent. Downstream: from the parent to a producer.
- Outbox: a file in memory, into which a producer writes its rows, and from which the parent reads them.
- To announce rows: to send `SegmentReady`, the message that says up to which byte an outbox was written.
- Status page: a page of memory in which a producer counts its rows, and a worker says which task it runs. On Linux, the
  parent can read it at any time.
- Journal: memory in which a worker keeps its last results. On Linux, the parent can read it even after the worker's
  death.
- Task: one call of a function in a worker. An attempt is one run of a task.
- Work item: one or several tasks of one call of the pool, which a worker gets in one message.
- To take back a work item: to tell the worker, through its status page, that it must not run the item.
- Engine: a program, such as Ray or Dask, that runs tasks in its own processes. It may run the same task again. The key
  of an engine task (16 bytes) is the same in all its runs.
- The sinks: the durable sinks, such as files. A viewer may get rows later.
- Complete: an engine task is complete if the sinks have all its rows.
- Shared recording: the recording of the parent. A task recording is a recording that a task makes itself.
- To release bytes: to free their memory, because the parent has read them, or nobody will read them.

Covers: message types and their encoding, sockets, the outbox, a worker's status page and its journal of results.
Does not cover: the meaning of a message (`producer`, `aggregator`, `scheduler`).
May import: nothing but the modules beside the packages of mpr, such as `errors`.
"""
