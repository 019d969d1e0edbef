"""Makes the viewer layout (blueprint) of a recording. If the user gives a layout, this package adds views of the pools.

Covers: views of the user's data, views of the workers, updates while the recording grows, and the names by which these
views find the telemetry of pools (`telemetry_names.py`).
Does not cover: the rows that the views show. `telemetry` writes these rows, and imports the names from this package.
May import: sdk, rrd.
"""
