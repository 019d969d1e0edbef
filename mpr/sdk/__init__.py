"""Uses the private names of the Rerun SDK, and hides the differences between its releases from all other packages.

Covers: wrapping the SDK's calls, encoding and reading rows with it, its command line, its state after a fork.
Does not cover: what a wrapped call leads to (`producer/router.py`) and the file format (`rrd`).
May import: nothing but the floor.

The private names, why they are needed, and what is lost if a release of the SDK does not have one:

| private name | why | without it |
|---|---|---|
| `rerun_bindings.log_arrow_msg` and the other entries in `log_calls._ENTRIES` | in workers, the wrappers count what a
  task logs, and wait in Python, with no lock held, while the outbox is full | every task is flushed; the outbox of a
  slow sink grows |
| `rerun_bindings.new_recording` | `rr.init` in a task makes the worker's own recording current | its rows are lost |
| `rerun_bindings.flush_and_cleanup_orphaned_recordings` | `rr.init` calls it, and it raises in a forked process |
  `rr.init` raises in workers of `start_method='fork'` |
| `rerun_bindings.send_recording_name`, `send_recording_start_time_nanos` | the name and start of the recording are the
  parent's; those of a worker become properties of its own | those of the last worker win |
| `rerun_bindings.get_recording_id`, `.binary_stream` | recordings that a task makes are known by the SDK's handle, long
  before there is a public object for them | their rows are lost if they have no sink |
| `rerun_bindings.set_global_data_recording` and its thread-local twin | 0.2 us, while the public function flushes
  the previous recording and takes 97 us; watched, so that a worker only resets what a task has changed | the public
  function is called before every task |
| `rerun_bindings.set_time_sequence` and the others in `times._SET_TIME`, `disable_timeline`, `reset_time` | the SDK
  has no function that returns the times of a thread; they are kept to restore those of a task's caller | times that a
  task sets stay on the rows of its caller |
| `rerun_bindings.finalize_deferred_sinks` | the end of a `with stream:` block would finish the file sink that leads to
  the recording | rows after the block are lost |
| `rerun_bindings.save` and the others in `sink_calls._SINK_CALLS` | a task that calls `rr.save` or `rr.disconnect`
  takes the worker's sink; it gets it back at the end of the task | the worker's rows are lost from then on |
| `LazyChunkStream._internal`, `UrdfTree._inner` | these send without calling an entry | such a task is flushed only
  if it also logs in another way |

`tests/test_data_path.py` fails when a release of the SDK moves one of them.
"""
