"""What a task is while it runs: its identity, its own times and entity path prefix; and `@mpr.task`.

Covers: the decorator, `SharedRecording.wrap`, and the context of a running task.
Does not cover: the loop of a pool's worker (`worker`) and the way of the rows (`producer`).
May import: sdk, transport, processes, producer.
"""
