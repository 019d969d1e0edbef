"""Records what the workers and tasks of a pool do, and sums this up for `pool.insights()`.

A pool of n workers has n places. If a worker is replaced, the new worker gets the place of the old one. A state
timeline shows the states of the workers at one place, one after another. A span is a task, or several short tasks. A
work item is one or several tasks that a worker gets in one message.

Three classes work together. The `TelemetryTracker` gets the events of the pool, and makes rows of them. The thread of
the `Sampler` measures the workers, takes the rows from the tracker, and writes them. The `RowCollector` keeps the rows
in between.

Covers: states and spans of workers and tasks, processor time and memory, the slowest tasks.
Does not cover: the layout in the viewer, and the names of entities and states, which are in `blueprint`.
Only `pool` imports this package.
May import: sdk, transport, scheduler, blueprint.
"""
