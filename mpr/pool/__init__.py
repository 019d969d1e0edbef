"""Provides `mpr.Pool`: the user's calls, the results, and the start and end of all parts of a pool.

Covers: the user's calls (`pool.py`, `executor.py`), the work items of each call (`calls.py`, `imap.py`), results,
checks of arguments (`options.py`), the start of all parts and the order in which they end (`runtime.py`).
Does not cover: which worker runs which task (`scheduler`), and where rows go (`recording`).
May import: transport, processes, worker, scheduler, telemetry, recording.
"""
