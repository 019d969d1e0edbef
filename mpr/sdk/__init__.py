"""Uses the private names of the Rerun SDK, and hides differences between SDK releases from all other packages.

Covers: wrapping the SDK's calls, encoding and reading rows with the SDK, the SDK's command line and state after a fork.
Does not cover: what a wrapped call leads to (`producer/router.py`) and the file format (`rrd`).
May import: nothing but the floor.

A private name is a function of the SDK's native module, or a method of one of its classes. `private_names.py` has the
list of these names. For each name it has the reason, and says what happens if a release of the SDK does not have the
name. `mpr doctor` says which of the names the installed SDK lacks, and `tests/test_private_names.py` removes each name
in turn.

These modules get the names from the list:

- `log_calls.py` (calls that hand data to a recording)
- `sink_calls.py` (calls that change a sink)
- `recordings.py` (new and current recordings)
- `times.py` (times of a thread)
- `settings.py` (settings that outlive a task; some of them are variables of the SDK's Python modules)
- `forks.py` (forked processes)
- `native.py` and `copies.py` (for the pytest plugin, whose calls a test must not see)

`callers.py` finds the public function that the user's code has called.
"""
