"""`mpr.SharedRecording`: puts sinks, aggregator and live viewers together.

Covers: opening and closing a recording, its options and statistics, showing it in a notebook.
Does not cover: workers (`pool`) and the way of the rows (`aggregator`, `sinks`).
May import: sdk, transport, processes, rrd, producer, sinks, tasks, live, aggregator, blueprint.
"""
