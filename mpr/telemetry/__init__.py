"""Records what the workers and tasks of a pool do, and sums it up for `pool.insights()`.

Covers: states and spans of workers and tasks, processor time and memory, the slowest tasks.
Does not cover: the layout in the viewer (`blueprint`). The rows here use the names of entities and states from there.
Only `pool` imports this package.
May import: sdk, transport, scheduler, blueprint.
"""
