"""The file format `.rrd`: its frames and manifests, writing, repairing, relabelling. No chunk is ever decoded.

Covers: bytes of a stream, from one frame to a finished file.
Does not cover: where the bytes come from (`aggregator`) and which file they go to (`sinks`).
May import: sdk.
"""
