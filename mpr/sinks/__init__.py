"""The sinks, which keep or show the rows of a recording. One module per durable sink has its value and its writer.

Covers: the values that users give, reading them from text, and the writers of durable sinks.
Does not cover: the processes that feed viewers (`live`) and the file format (`rrd`).
May import: sdk, rrd.
"""
