"""Compares two recordings, and says in which rows they differ.

A cell is the component batch of one row: the value of one component of one entity at one time.

Covers: reading both recordings, matching their rows, comparing cells within tolerances.
Does not cover: the pytest fixture and the command, which call this package (`pytest_plugin/golden.py`, `cli.py`).
May import: sdk, rrd.
"""
