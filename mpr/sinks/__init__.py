"""The sinks, which keep or show the rows of a recording.

A result waits for every durable sink (a file, a folder, a stream), and for no live sink (a viewer, a server). Each
durable sink has a module with the value that users give, and the writer that keeps the rows.

Covers: the values that users give, reading them from text, and the writers of durable sinks.
Does not cover: the processes that feed viewers (`live`) and the file format (`rrd`).
May import: sdk, rrd.
"""
