"""Records what the workers and tasks of a pool do, and sums up the times and counts for `pool.insights()`.

These words have a meaning of their own here:

- A place is a number from 0 to n - 1 in a pool of n workers. If a worker is replaced, the new worker gets a place that
  an ended worker has left.
- A state timeline is an entity that shows the states of the workers at one place, one after another. If a worker has
  died, the next one at this place usually begins a new state timeline (`places.py`).
- A work item is one or several tasks that a worker gets in one message.
- A span is one row about one task, or about several short tasks that a worker ran one after another.
- A task is settled when it has its outcome: a result or an error.
- A sample has the measurements of one moment: processor time, memory, tasks per second.
- The number of a worker is unique in its pool. The number of a task counts all tasks of the pool, from 0. The index of
  a task counts the tasks of one call or of one work item, from 0.

```
events of the pool ─► TelemetryTracker ─► RowCollector (keeps rows) ─► Sampler (writes rows) ─► recording
```

The `TelemetryTracker` makes rows of the pool's events. The `RowCollector` keeps the rows. A thread of the `Sampler`
measures the workers, and writes the rows into the recording.

Covers: the states of workers, the spans of tasks, processor time and memory, the slowest tasks.
Does not cover: the layout in the viewer, and the names of entities and states (`blueprint`).
May import: sdk, transport, scheduler, blueprint.
"""
