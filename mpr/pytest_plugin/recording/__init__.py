"""Records tests, in each process that runs tests. Each recorded attempt (execution) of a test gets its own file.

The docstring of `mpr.pytest_plugin` explains run, attempt, phase, worker, journal, stream and handle.

Covers: the rows that a test logs in any way, and rows about the test: its phases, output, outcome and traceback.
Does not cover: the report when all tests have ended (`report`).
"""
