"""The sinks, which keep or show the rows of a recording.

A durable sink is a file, a folder or a stream. A live sink is a viewer or a server. A caller gets the result of a task
only after every durable sink has the rows of the task, but no result waits for a live sink. Each durable sink has a
module with the value that users give, and the writer that keeps the rows.

Covers: the values that users give, reading them from text, and the writers of durable sinks.
Does not cover: the processes that feed viewers (`live`) and the file format (`rrd`).
May import: sdk, rrd.
"""
