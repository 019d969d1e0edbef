"""Uses the private names of the Rerun SDK for all packages, and adapts mpr to the SDK's releases.

Covers: wrapping the SDK's calls, encoding and reading rows with the SDK, the SDK's command line and state after a fork.
Does not cover: the decisions about a wrapped call (`producer/router.py`) and the file format (`rrd`).
May import: nothing but the floor.

```
rr.log ────► wrapper (log_calls.py) ──► producer/router.py: counts rows, waits, gives a prefix
                     └──► function of the native module ──► recording ──► sink
rr.save ───► wrapper (sink_calls.py) ──► producer/router.py: skips the call, or sets the sink back later
rows of mpr ──► encoder.py ──► bytes          bytes ──► reader.py ──► chunks
```

These words have the same meaning in all modules:

- Native module: `rerun_bindings`, the module of the SDK that is written in Rust. The public functions call its
  functions.
- Private name: a function of the native module, or a method of one of its classes.
- Handle: the native module's object that stands for one recording. In arguments, None stands for the current recording.
- Ids of a recording: its application id and its recording id.
- Entry: a function of the native module that hands data to a recording.
- Wrapper: a function of mpr in place of a function of the SDK, which the wrapper calls.
- Chunk (a word of Rerun): a table with rows of one entity. Store (a word of Rerun): a recording or a blueprint.
- Encoded stream: rows as bytes, in the form of an `.rrd` file. To decode is to read the rows from the bytes.
- Current recording: the recording that a call of the SDK uses if it names none. A thread may have one of its own. All
  other threads use that of the process, the global one.
- Task: a call of a function that a worker runs, or a call of a function with the decorator `@mpr.task`. If the function
  is a generator, the task runs in several steps.
- Outbox: a file in memory with the rows of a process that the parent has not yet taken.

`private_names.py` has the list of the private names, with the reason for each, and with what happens if a release of
the SDK lacks it. `mpr doctor` says which of the names the installed SDK lacks.

These modules get the names from the list:

- `log_calls.py` (calls that hand data to a recording)
- `sink_calls.py` (calls that change a sink)
- `recordings.py` (new and current recordings)
- `times.py` (times of a thread)
- `settings.py` (settings that outlive a task; some of them are variables of the SDK's Python modules)
- `forks.py` (forked processes)
- `native.py`, `copies.py` and `kept_calls.py` (for the pytest plugin, whose calls a test must not see)

`callers.py` finds the public function that the user's code has called.
"""
