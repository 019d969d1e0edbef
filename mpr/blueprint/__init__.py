"""Makes the viewer layout (blueprint) of a recording. If the user gives a layout, this package adds views of the pools.

```
rows of all processes ─► contents.py: which entities there are ─► updates.py: whether a new layout is needed
                                                                       └─► default.py: makes the layout
```

Telemetry is what a pool records of itself: its workers, tasks and their use of the machine. A state timeline is a row
of coloured states in the viewer, which shows what a worker does over time. The archetypes of an entity are the kinds of
data that it has, such as `Points2D`.

Covers: views of the user's data, views of the pools, updates while the recording grows, and the names by which these
views find the telemetry of pools (`telemetry_names.py`).
Does not cover: the rows that the views show. `telemetry` writes these rows, and imports the names from this package.
May import: sdk, rrd.
"""
