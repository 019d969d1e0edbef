"""`mpr.Pool`: the calls of its user, their results, and the start and end of all parts.

Covers: the user's calls (`pool.py`, `executor.py`), work items made of them (`calls.py`, `imap.py`), results, checks of
arguments (`options.py`), all parts and the one order in which they end (`runtime.py`).
Does not cover: which worker runs which task (`scheduler`), and where rows go (`recording`).
May import: transport, processes, worker, scheduler, telemetry, recording.
"""
