"""Records each test, in each process that runs tests.

Covers: rows that a test logs in any way, and its phases, output and traceback.
Does not cover: the report when all tests have ended (`report`).
"""
