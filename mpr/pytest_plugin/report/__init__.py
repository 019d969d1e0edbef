"""Reports on a run when all tests have ended: repairs files, and writes the summary, the page and the pictures.

A run is one call of pytest. The docstring of `mpr.pytest_plugin` explains attempt, phase, worker and journal.

Covers: everything that happens in the process in which pytest was started, after the last test.
Does not cover: recording a test while it runs (`recording`).
"""
