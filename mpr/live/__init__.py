"""The exporters: processes that send rows to viewers and servers.

Covers: starting, feeding and replacing one exporter per live sink, and keeping rows for viewers that come late.
Does not cover: the values that users give (`sinks/viewers.py`).
May import: sdk, transport, processes, rrd, sinks.
"""
