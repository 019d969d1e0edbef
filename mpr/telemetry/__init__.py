"""What a pool records of itself, and `pool.insights()`.

Covers: states and spans of workers and tasks, processor time and memory, the slowest tasks.
Does not cover: how they are laid out in the viewer (`blueprint`).
May import: sdk, transport, scheduler.
"""
