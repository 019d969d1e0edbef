"""Compares two recordings, and says in which rows they differ.

Covers: reading both recordings, matching their rows, comparing cells within tolerances.
Does not cover: the pytest fixture and the command that call it (`pytest_plugin/golden.py`, `cli.py`).
May import: sdk, rrd.
"""
