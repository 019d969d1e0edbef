"""A process's way into a recording: that of a worker, of a process that has joined, and of the parent itself.

Covers: what a logging call passes, the outbox and its credit, results behind their rows, joining and leaving.
Does not cover: which task runs (`worker`, `tasks`) and what the parent does with the bytes (`aggregator`).
May import: sdk, transport, rrd.
"""
