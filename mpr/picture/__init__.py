"""Draws a picture of a recording with the real viewer: `mpr.picture.render`.

Covers: the process with the viewer, and the wait for its picture.
Does not cover: which recordings get a picture (`pytest_plugin/report/pictures.py`).
May import: sdk, rrd.
"""

from mpr.picture.rendering import render as render
