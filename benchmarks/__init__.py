"""Benchmarks of mpr. Most of them compare mpr with a program that does the same without mpr.

`python -m benchmarks` runs them. `common.py` explains the words way, floor and round.
"""
