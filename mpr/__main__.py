"""`python -m mpr` is the command line."""

from mpr.cli import main

main()
