"""The default layout of a recording in the viewer.

Covers: views of what the recording contains, the display of workers, updates while it grows.
Does not cover: the rows that are shown (`telemetry`).
May import: sdk, rrd, telemetry.
"""
