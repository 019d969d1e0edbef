"""Runs the command line `mpr` (`cli.py`) when a user calls `python -m mpr`."""

from mpr.cli import main

main()
