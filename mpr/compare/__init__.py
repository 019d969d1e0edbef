"""Compares two recordings, and says in which rows they differ.

A row of a recording has a list of values for each of its components. A cell is one such list: the values of one
component of one entity in one row. Rerun calls it a component batch. A key is a short byte string that is equal for
equal cells.

```
two files ─► reading.py: the cells ─► compare.py: matches them by their keys ─► cells.py, pixels.py: words for each
```

Covers: reading both recordings, matching their rows, comparing cells within tolerances.
Does not cover: the fixture `mpr_golden` (`pytest_plugin/golden.py`) and the command `mpr compare` (`cli.py`). Both call
this package.
May import: sdk, rrd.
"""
