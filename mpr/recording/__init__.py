"""Provides `mpr.SharedRecording`: one recording that many processes log into.

The parent is the process that has made the recording. A process that joins the recording gets a producer, which sends
its rows to the parent. The aggregator is a thread of the parent that receives the rows and gives them to the fan-out
(`aggregator/fanout.py`). The fan-out passes them to all sinks, which are the destinations of the rows. A durable sink
is a file, a folder or a stream: it has the rows of a task before the caller gets the result. If it cannot get them, the
caller gets an error instead. A live sink is a viewer or a server: no result waits for it.

```
user ─► SharedRecording ─► RecordingOptions (checks) ─► RecordingRuntime ─► open_sinks ─► durable and live sinks
                                                             ├──► Aggregator (thread) ─► the same sinks
                                                             └──► ParentMembership ─► the parent's producer
```

Telemetry is the rows that a pool logs about its workers and tasks. The layout is the blueprint of the viewer.

Covers: the user's calls (`shared_recording.py`), starting and ending all parts (`runtime.py`), options, statistics, the
viewer in a notebook.
Does not cover: workers (`pool`), how rows get to the sinks (`aggregator`, `sinks`), making telemetry (`telemetry`).
May import: sdk, transport, processes, rrd, datasets, producer, sinks, tasks, live, aggregator, blueprint.
"""
