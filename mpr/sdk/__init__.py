"""Uses the private names of the Rerun SDK, and hides differences between SDK releases from all other packages.

Covers: wrapping the SDK's calls, encoding and reading rows with the SDK, the SDK's command line and state after a fork.
Does not cover: what a wrapped call leads to (`producer/router.py`) and the file format (`rrd`).
May import: nothing but the floor.

`rerun_bindings` is the native module of the SDK. A handle (`inner` or `native` in the code) is the object of this
module that stands for one recording. An entry is a function of this module that hands data to a recording. A task is
flushed if mpr waits at the end of the task until the SDK has encoded the rows.

The list has each private name, the reason why mpr uses it, and the loss if a release of the SDK does not have it:

- `rerun_bindings.log_arrow_msg` and the other entries in `log_calls._ENTRIES`: in workers, their wrappers count what a
  task logs. While the outbox is full, the wrappers wait in Python, where they hold no lock.
  Without them: every task is flushed, and the outbox of a slow sink grows.
- `rerun_bindings.new_recording`: the wrapper lets `rr.init` in a task make the worker's own recording current.
  Without it: the rows of such a task are lost.
- `rerun_bindings.flush_and_cleanup_orphaned_recordings`: `rr.init` calls this function, which raises in a forked
  process.
  Without it: `rr.init` raises in workers of `start_method='fork'`.
- `rerun_bindings.send_recording_name`, `send_recording_start_time_nanos`: the parent sets the name and the start of the
  recording. The name and the start that a worker sets become properties of that worker.
  Without them: the name and the start of the last worker win.
- `rerun_bindings.get_recording_id`, `.binary_stream`: a recording that a task makes has a handle of the SDK long before
  there is a public object for the recording. These functions take the handle, and the public functions do not.
  Without them: the rows of such a recording are lost if the recording has no sink.
- `rerun_bindings.set_global_data_recording` and its thread-local twin: a call takes 0.2 us. The public function takes
  97 us, because it flushes the previous recording. The calls are also watched, so that a worker resets the current
  recording only if a task has changed the current recording.
  Without them: the public function is called before every task.
- `rerun_bindings.set_time_sequence` and the others in `times._SET_TIME`, `disable_timeline`, `reset_time`: the SDK has
  no function that returns the times of a thread. So mpr notes the times, to restore the times of a task's
  caller.
  Without them: times that a task sets stay on the rows of its caller.
- `rerun_bindings.save`, `.flush` and the others in `native.Native`: the pytest plugin writes its rows with these native
  functions, because a test may replace the public functions, and count their calls.
  Without them: the pytest plugin does not work.
- `rerun_bindings.finalize_deferred_sinks`: the SDK calls this function at the end of a `with stream:` block. There, it
  would finish the file sink that leads to the recording.
  Without it: rows after the block are lost.
- `rerun_bindings.save` and the others in `sink_calls._SINK_CALLS`: a task that calls `rr.save` or `rr.disconnect` takes
  the sink of the worker away. The worker gets the sink back at the end of the task.
  Without them: the worker's rows are lost from then on.
- `LazyChunkStream._internal`, `UrdfTree._inner`: these classes send data without calling one of the wrapped entries. So
  if a task reads one of these attributes, mpr counts this as a logging call.
  Without them: a task that logs with these classes is flushed only if it also logs in another way.

`tests/test_data_path.py` fails if a release of the SDK moves one of these names.
"""
