"""Processes that feed viewers and servers.

Covers: starting, feeding and replacing an exporter per viewer, and what viewers that come late get.
Does not cover: the values that users give (`sinks/viewers.py`).
May import: sdk, transport, processes, rrd, sinks.
"""
