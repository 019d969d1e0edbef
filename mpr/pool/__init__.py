"""`mpr.Pool`: what its user calls and holds in hand.

Covers: the calls of `multiprocessing.Pool` and of an executor, results, starting and ending all parts.
Does not cover: which worker runs what (`scheduler`) and where rows go (`recording`).
May import: transport, processes, worker, scheduler, telemetry, recording.
"""
