"""Draws a picture of a recording with the real viewer: `mpr.picture.render`.

```
render (rendering.py) ─► process that draws (process.py) ─► viewer without a window ─► PNG file
```

Covers: a process that runs the viewer, the wait for this process, and saving the picture.
Does not cover: which recordings of tests get a picture (`pytest_plugin/report/pictures.py`).
May import: sdk, rrd.
"""

from mpr.picture.rendering import render as render
