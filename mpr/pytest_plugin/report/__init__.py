"""Reports on a run when all tests have ended: repairs files, and writes the summary, the page and the pictures.

Covers: the process that controls the run.
Does not cover: recording a test while it runs (`recording`).
"""
