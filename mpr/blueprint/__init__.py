"""Makes the viewer layout of a recording, if the user gives none, and the views that are added to the user's.

Covers: views of the user's data, views of the workers, updates while the recording grows, and the names by which these
views find the telemetry of pools (`telemetry_names.py`).
Does not cover: the rows that the views show (`telemetry`, which imports the names from here; nothing here imports it).
May import: sdk, rrd.
"""
