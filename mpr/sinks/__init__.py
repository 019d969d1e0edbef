"""Defines the sinks: the destinations that keep or show the rows of a recording.

A durable sink is a file, a folder, a stream or the program's own recording. A live sink is a viewer or a server. A
caller gets the result of a task only after every durable sink that still works has the rows of the task. No result
waits for a live sink, except with `route="direct"`: workers then write to the sinks themselves, and may wait for a
viewer.

```
user's value ─► parse.py ─► durable sink ─ open() ─► writer      aggregator ─ segments ─► writer ─► file, folder, stream
                       └──► live sink ─► exporter (live)         aggregator ─ segments ─► live ─► exporter ─► viewer
```

These words have the same meaning in all modules:

- Parent: the process that has made the recording. The aggregator is the thread of the parent that gives rows to sinks.
- Writer: the object that a durable sink opens, and that keeps the rows.
- Exporter: a process that sends rows to one live sink.
- Shared recording: the recording into which all processes log. A task may make other recordings itself.
- Outbox: a file in memory, in which a process that logs leaves its rows for the parent.
- Segment: some whole frames of an outbox. `rrd/__init__.py` explains the words of the file format, such as frame,
  chunk, manifest and store.

Covers: the classes of sinks, reading sinks from text, and the writers of durable sinks.
Does not cover: the processes that feed viewers (`live`) and the file format (`rrd`).
May import: sdk, rrd, datasets.
"""
