"""The file format `.rrd`: frames, manifests, writing, repairing and relabelling. mpr itself never decodes a chunk.

Covers: the bytes of a stream, from one frame to a finished file.
Does not cover: the source of the bytes (`aggregator`) and the choice of a file for them (`sinks`).
May import: sdk.
"""
