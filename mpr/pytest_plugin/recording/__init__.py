"""In each process that runs tests: the recording of each test.

Covers: what a test logs, by whatever way, and its phases, output and traceback.
Does not cover: what is done when all tests have run (`report`).
"""
