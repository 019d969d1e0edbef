"""`mpr run`: a command whose processes all log into one recording.

Covers: the command, what each of its processes does at its start and end, the summary.
Does not cover: the command line's options (`cli.py`).
May import: rrd, producer, sinks, tasks, live, recording.
"""
