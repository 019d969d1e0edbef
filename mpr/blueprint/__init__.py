"""Makes the viewer layout (blueprint) of a recording whose pools record telemetry.

If the user gives a layout and wants to see the pools, the new layout is the user's layout with views of the pools
added.

```
rows of all processes ─► contents.py: which entities there are ─► updates.py: whether a new layout is needed
                                                                       └─► default.py: makes the layout
```

Telemetry is what a pool records of itself: its workers, tasks and their use of the machine. A state timeline is a row
of coloured states in the viewer. It shows over time what a worker does, and if the worker dies, what its replacement
does. The archetypes of an entity are the kinds of data that it has, such as `Points2D`.

Covers: views of the user's data, views of the pools, updates while the recording grows, and the names by which these
views find the telemetry of pools (`telemetry_names.py`).
Does not cover: the rows of telemetry. The package `telemetry` writes them, and imports the names from this package.
Also not the layout of a failed test (`pytest_plugin/report/layout.py`), which uses the views of the user's data.
May import: sdk, rrd.
"""
