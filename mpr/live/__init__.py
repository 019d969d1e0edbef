"""Processes that feed viewers and servers.

Covers: starting, feeding and replacing an exporter per viewer, and keeping rows for viewers that come late.
Does not cover: the values that users give (`sinks/viewers.py`).
May import: sdk, transport, processes, rrd, sinks.
"""
