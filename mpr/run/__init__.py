"""Runs a command whose processes all log into one recording: `mpr run`.

Covers: the command, the start and end of each of its processes, the summary.
Does not cover: the command line's options (`cli.py`).
May import: rrd, producer, sinks, tasks, live, recording.
"""
