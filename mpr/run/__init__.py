"""Runs a command, and lets its Python processes log into one recording: `mpr run`.

```
mpr run (makes the recording) ─ starts ─► command ─► Python process ─► sitecustomize.py ─► startup.begin()
                                                       first logging call, at the latest ─► joins the recording
```

A Python process does not join if it runs with `-I`, `-E` or `-S`, or cannot import mpr. It does not join either if its
environment lacks one of the two variables that `command.py` sets.

Covers: the command, the start and end of each of its processes, the summary.
Does not cover: the command line's options (`cli.py`).
May import: rrd, producer, sinks, tasks, live, recording.
"""
