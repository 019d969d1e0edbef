"""Runs a worker process of a pool.

Covers: its entry function, the loop over its tasks, forked children that leave a task, capture of `logging` and output.
Does not cover: how rows reach the sinks (`producer`), and which worker gets which task (`scheduler`).
May import: sdk, transport, processes, producer, tasks.
"""
