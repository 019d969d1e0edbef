"""Runs a command whose Python processes all log into one recording: `mpr run`.

```
mpr run (makes the recording) ─ starts ─► command ─► Python process ─► sitecustomize.py ─► startup.begin()
                                                                     first logging call ─► joins the recording
```

Covers: the command, the start and end of each of its processes, the summary.
Does not cover: the command line's options (`cli.py`).
May import: rrd, producer, sinks, tasks, live, recording.
"""
