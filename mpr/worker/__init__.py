"""Runs a worker process of a pool.

The parent is the process that has the pool. It sends a worker *work items*: messages with one or more tasks.

Covers: its entry function, the loop over its tasks, forked children that leave a task, capture of `logging` and output.
Does not cover: how rows reach the sinks (`producer`), and which worker gets which task (`scheduler`).
May import: sdk, transport, processes, producer, tasks.
"""
