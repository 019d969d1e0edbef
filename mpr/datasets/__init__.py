"""Describes the tasks of a data set: a folder with one recording per task (`sinks/directory.py`).

```
function, arguments ─► arguments.py ─► TaskCall ─┬► properties.py ─► typed columns of the recording's properties
                         digest.py ───┘          ├► naming.py, template.py ─► name of the file, id of the recording
                                                 └► data_set.py ◄──► manifest.py: what is complete already
                                                      mpr ls, mpr.read_runs ◄── query.py ◄──┘
```

A *property* is a value of a whole recording. A *field* is a named part of the arguments of a task, such as `lr` or
`cfg.lr`. A catalog server makes a table of the properties of many recordings, with one column per field. The *manifest*
of the folder is `manifest.jsonl`, with a line per recording. A *digest* is a hash of a call: of the name of its
function and of its arguments. An *episode* is a task of a data set with all its attempts.

Covers: the fields of a call, and the types and names of its properties.
Does not cover: the files (`sinks`), and the calls of a pool (`pool`).
May import: transport, rrd.
"""
