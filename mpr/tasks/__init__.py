"""Runs a function as a task, with its own identity, times and entity path prefix.

```
call of a decorated function ─► decorator ─► execution (finds the recording) ─► context (sets the times) ─► body
body ends ─► context (restores the times of the caller) ─► execution (delivers the rows to the sinks)
```

The words of this package:

- *body*: the code of the function that the user has written.
- *step*: a whole call of a plain function, or the part of a generator or coroutine up to its next pause.
- *context*: the times, the prefix, the recording and the settings of the SDK that one task has.
- *prefix*: a path that mpr puts before the entity paths that the body logs.
- *index*: the number of a task: its position in its `map`, or a number that counts single calls. The docstring of
  `CurrentTask` (`current.py`) has all cases.
- *deliver*: send rows, and wait until every durable sink (such as a file) has them.
- *capture*: send all logging calls of the process without an argument `recording` to one recording, until a wrapped
  function has ended.
- *inherited recording*: the recording whose connection info this process has from its parent process. Connection info
  is a text that has all that a process needs to join a recording.
- *current recording*: the recording to which `rr.log` without an argument `recording` logs in this thread.

Covers: the decorator `@mpr.task`, `SharedRecording.wrap`, and the context of a running task.
Does not cover: the loop of a pool's worker (`worker`), and how rows reach the sinks (`producer`).
May import: sdk, transport, processes, producer.
"""
