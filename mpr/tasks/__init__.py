"""Runs a function as a task, with its own identity, times and entity path prefix.

The words of this package:

- *body*: the code of the function that the user has written.
- *step*: a whole call of a plain function, or the part of a generator or coroutine up to its next pause.
- *context*: the times, the prefix, the recording and the settings of the SDK that one task has.
- *inherited recording*: a process inherits it from its parent process, as connection info: a text for joining.
- *current recording*: the recording to which the SDK itself would log in this thread.

Covers: the decorator `@mpr.task`, `SharedRecording.wrap`, and the context of a running task.
Does not cover: the loop of a pool's worker (`worker`), and how rows reach the sinks (`producer`).
May import: sdk, transport, processes, producer.
"""
