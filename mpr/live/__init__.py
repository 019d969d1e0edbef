"""The exporters: processes that send rows to viewers and servers.

Covers: starting, feeding and replacing one exporter per live sink, and keeping rows for viewers that come late.
Does not cover: the values that users give (`sinks/viewers.py`).
May import: sdk, transport, processes, rrd, sinks.

A live sink is a viewer or a server. Each live sink has one exporter at a time, which ends when its connection breaks.
The parent then starts another exporter. The replay log is a list of files with the rows that exporters send. A slice is
the part of such a file that an exporter sends at a time. A chunk is the unit in which the Rerun SDK sends rows: some
rows of one entity.
"""
