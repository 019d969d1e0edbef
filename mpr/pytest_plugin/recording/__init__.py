"""Records each test, in each process that runs tests.

Covers: rows that a test logs in any way, and the phases, output and traceback of the test.
Does not cover: the report when all tests have ended (`report`).
"""
