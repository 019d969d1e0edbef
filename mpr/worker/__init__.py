"""What a worker process of a pool does.

Covers: its entry function, the loop over its tasks, and the capture of `logging` and output.
Does not cover: the way of the rows (`producer`) and which worker gets which task (`scheduler`).
May import: sdk, transport, processes, producer, tasks.
"""
