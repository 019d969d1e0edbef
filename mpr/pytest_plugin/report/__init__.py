"""When all tests have run: repaired files, the summary, the page and its pictures.

Covers: the process that controls the run.
Does not cover: what happens while a test runs (`recording`).
"""
