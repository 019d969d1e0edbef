"""Provides `mpr.SharedRecording`, and the runtime that connects sinks, aggregator and live viewers.

Covers: the user's calls (`shared_recording.py`), starting and ending all parts (`runtime.py`), options, statistics, the
viewer in a notebook.
Does not cover: workers (`pool`), and how rows come to the sinks (`aggregator`, `sinks`).

The layout of the viewer shows the telemetry of pools. Still, this package does not import the scheduler, because the
layout (`blueprint`) needs only the names under which telemetry is logged.

May import: sdk, transport, processes, rrd, producer, sinks, tasks, live, aggregator, blueprint.

The parent is the process that has made the recording. A process joins the recording to log into it, and then has a
producer, which sends its rows to the parent. A durable sink (such as a file) has the rows of a task before the caller
gets the result. No result waits for a live sink (such as a viewer).
"""
