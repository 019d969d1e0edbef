"""Runs a worker process of a pool.

The parent is the process that has the pool. It sends a worker *work items*: messages with one or more tasks.

```
parent ─► work item ─► loop (calls the function for each task) ─► results ─► parent
                         └ capture (text and log records of the task) ─► recording
```

The worker starts in `main.py`. Its *producer* (`producer/producer.py`) sends the results and rows to the parent. The
*status page* is memory in which the worker writes which task it runs. On Linux, the parent can read it even if the
worker has died. A *fork server* is a process that has imported the modules already, and forks the workers.

Covers: the entry function of a worker, the loop over its tasks, forked children that leave a task, capture of `logging`
and output.
Does not cover: how rows reach the sinks (`producer`), and which worker gets which task (`scheduler`).
May import: sdk, transport, processes, producer, tasks.
"""
