"""Reports on a run when all tests have ended: repairs files, writes the summary, page and pictures, serves the page.

A run is one call of pytest. The docstring of `mpr.pytest_plugin` explains attempt, phase, worker and journal.

Covers: everything that happens in the process in which pytest was started, after the last test. Also the repair of a
killed run by the command `mpr recover` (`recovery.py`).
Does not cover: recording a test while it runs (`recording`).
"""
