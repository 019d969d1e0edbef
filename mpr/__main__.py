"""Runs the command line, for `python -m mpr`."""

from mpr.cli import main

main()
