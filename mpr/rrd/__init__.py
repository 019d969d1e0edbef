"""The file format `.rrd`: its frames and manifests, writing, repairing, relabelling. No chunk is ever decoded.

Covers: bytes of a stream, from one frame to a finished file.
Does not cover: the source of the bytes (`aggregator`) and the choice of a file for them (`sinks`).
May import: sdk.
"""
