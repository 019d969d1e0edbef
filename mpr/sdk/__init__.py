"""Uses the private names of the Rerun SDK, and hides differences between SDK releases from all other packages.

Covers: wrapping the SDK's calls, encoding and reading rows with the SDK, the SDK's command line and state after a fork.
Does not cover: what a wrapped call leads to (`producer/router.py`) and the file format (`rrd`).
May import: nothing but the floor.

`private_names.py` has the list of the private names, with the reason for each, and with what happens if a release of
the SDK does not have it. All other modules look the names up there. `mpr doctor` shows the list's answer for the
installed SDK, and `tests/test_private_names.py` removes each name in turn.

The modules that use the list: `log_calls.py` (calls that hand data to a recording), `sink_calls.py` (calls that change
a sink), `recordings.py` (new and current recordings), `times.py` (times of a thread). `callers.py` finds the public
function that the user's code has called.
"""
