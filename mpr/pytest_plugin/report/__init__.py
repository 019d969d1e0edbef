"""Reports on a run when all tests have ended: repaired files, the summary, the page and its pictures.

Covers: the process that controls the run.
Does not cover: recording a test while it runs (`recording`).
"""
