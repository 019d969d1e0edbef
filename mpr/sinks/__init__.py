"""Defines the sinks: the destinations that keep or show the rows of a recording.

A durable sink is a file, a folder or a stream. A live sink is a viewer or a server. A caller gets the result of a task
only after every durable sink has the rows of the task. No result waits for a live sink. With `route="direct"`, this is
different: workers write to the sinks themselves, and may wait for a viewer.

```
user's value ─► parse.py ─► durable sink ─ open() ─► writer      aggregator ─ segments ─► writer ─► file, folder, stream
                       └──► live sink ─► exporter (live)         aggregator ─ segments ─► live ─► exporter ─► viewer
```

For each kind of sink, there is a class whose objects users give to mpr, such as `FileSink`. A durable sink opens a
writer, which keeps the rows. The aggregator, a thread of the parent, gives the rows to the writer as segments: encoded
pieces of a Rerun stream. The parent is the process that has made the recording. An exporter is a process that sends
rows to one live sink. The shared recording is the one into which all processes log. A task may make other recordings
itself. The words of the file format, such as segment, chunk, manifest and store, are explained in `rrd/__init__.py`.

Covers: the classes of sinks, reading sinks from text, and the writers of durable sinks.
Does not cover: the processes that feed viewers (`live`) and the file format (`rrd`).
May import: sdk, rrd.
"""
