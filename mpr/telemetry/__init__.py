"""Records what the workers and tasks of a pool do, and sums it up for `pool.insights()`.

Covers: states and spans of workers and tasks, processor time and memory, the slowest tasks.
Does not cover: the layout in the viewer (`blueprint`, whose names of entities and states the rows here use).
Only `pool` imports this package.
May import: sdk, transport, scheduler, blueprint.
"""
