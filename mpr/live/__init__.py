"""Sends rows to viewers and servers, by processes of their own: the exporters.

Covers: starting and replacing one exporter per live sink, sending rows to it, and keeping rows for viewers that connect
late.
Does not cover: the values that users give (`sinks/viewers.py`).
May import: sdk, transport, processes, rrd, sinks.

```
parent process                                                          exporter process
aggregator ── segment ──► LiveSupervisor ──► ReplayLog: files ───────────► reads the rows in the files
                              │                                                   ▲          │
                              └► ExporterHandle, one per live sink ── SendSlice ──┘          └──► viewer
```

These words have the same meaning in all modules:

- Live sink: a viewer or a server. A durable sink is, for example, a file.
- Exporter: the process that sends rows to one live sink. Each live sink has one exporter at most. An exporter ends
  when its connection breaks. While the recording is open, the parent then starts another one.
- Replay log: a list of files with the rows that exporters send. Each file has a number.
- Memory ring: a file of the replay log that is in memory and drops its oldest segments.
- Slice: a part of a file of the replay log. The parent tells an exporter to send one slice at a time.
- Chunk: the unit in which the Rerun SDK sends rows: some rows of one entity.
- Segment: some whole frames of the `.rrd` format, with the rows of one process (`rrd/__init__.py`).
- Launcher: the object that starts processes, and reports those that have ended (`processes/launcher.py`).
"""
