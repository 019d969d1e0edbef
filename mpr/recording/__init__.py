"""`mpr.SharedRecording`, and the runtime that connects sinks, aggregator and live viewers.

Covers: the user's calls (`shared_recording.py`), starting and ending all parts (`runtime.py`), options, statistics, the
viewer in a notebook.
Does not cover: workers (`pool`), and how rows come to the sinks (`aggregator`, `sinks`).
This package does not know the scheduler, because the layout that it imports knows only the names of the telemetry.
May import: sdk, transport, processes, rrd, producer, sinks, tasks, live, aggregator, blueprint.
"""
