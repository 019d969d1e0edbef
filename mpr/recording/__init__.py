"""Provides `mpr.SharedRecording`: one recording that many processes log into.

The parent is the process that has made the recording. A process joins the recording to log into it, and then has a
producer, which sends its rows to the parent. The aggregator is a thread of the parent that receives the rows. It gives
them to the fan-out (`aggregator/fanout.py`), which passes them to all sinks. A sink is a destination of rows. A durable
sink is a file, a folder or a stream: it has the rows of a task before the caller gets the result. A live sink is a
viewer or a server: no result waits for it.

```
user ─► SharedRecording ─► RecordingOptions (checks) ─► RecordingRuntime ─► open_sinks ─► durable and live sinks
                                                             ├──► Aggregator (thread) ─► the same sinks
                                                             └──► ParentMembership ─► the parent's producer
```

Covers: the user's calls (`shared_recording.py`), starting and ending all parts (`runtime.py`), options, statistics, the
viewer in a notebook.
Does not cover: workers (`pool`), and how rows get to the sinks (`aggregator`, `sinks`).

Telemetry is what a pool logs about its workers and tasks. This package sends the layout of the viewer (`blueprint`),
which also shows telemetry. The layout needs only the names under which telemetry is logged, so `telemetry` is not
imported.

May import: sdk, transport, processes, rrd, producer, sinks, tasks, live, aggregator, blueprint.
"""
