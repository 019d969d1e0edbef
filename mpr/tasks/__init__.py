"""Runs a function as a task: it has an identity, times and an entity path prefix of its own.

Covers: the decorator `@mpr.task`, `SharedRecording.wrap`, and the context of a running task.
Does not cover: the loop of a pool's worker (`worker`) and the way of the rows (`producer`).
May import: sdk, transport, processes, producer.
"""
