"""Compares two recordings, and describes in words how they differ.

A row of a recording has a list of values for each of its components. A cell is one such list: the values of one
component of one entity in one row. Rerun calls this list a component batch. A key is a short byte string that is made
from a cell. Cells that are equal bit for bit have equal keys.

```
two files ─► reading.py: cells ─► compare.py: matches them by their keys ─► cells.py, pixels.py: differences in words
```

Covers: reading both recordings, matching their cells, comparing cells within tolerances.
Does not cover: the fixture `mpr_golden` (`pytest_plugin/golden.py`) and the command `mpr compare` (`cli.py`). Both call
this package.
May import: sdk, rrd.
"""
