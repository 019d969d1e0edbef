"""Runs a function as a task, with its own identity, times and entity path prefix.

Covers: the decorator `@mpr.task`, `SharedRecording.wrap`, and the context of a running task.
Does not cover: the loop of a pool's worker (`worker`), and how rows reach the sinks (`producer`).
May import: sdk, transport, processes, producer.
"""
