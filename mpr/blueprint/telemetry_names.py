"""Defines the names that the telemetry of pools and the layout share: entity paths, charts, states of workers.

The package `telemetry` writes rows under these names, and `default.py` makes views of these rows. The names are not in
`telemetry`, because it imports the scheduler, on which the layout must not depend.
"""

from __future__ import annotations

#: The entity above all entities that mpr itself logs.
ROOT = "mpr"
#: The entity above the entities of the state timelines. Each state timeline has one entity.
WORKERS = f"{ROOT}/workers"
#: The entity above the entities of the task functions. Each task function has one entity.
TASKS = f"{ROOT}/tasks"
#: The entity above the entities with the insights of the pools. Each pool has one entity.
INSIGHTS = f"{ROOT}/insights"
#: The timeline of rows about tasks. The time of such a row is the number of the task in its pool.
TASK_TIMELINE = "mpr_task"

#: Charts with a line for each worker: path below `ROOT`, and title. Below this path, each pool has an entity.
WORKER_CHARTS = {"cpu": "CPU (%)", "memory": "Memory (MB)", "threads": "Threads", "files": "Open files"}
#: Charts of a whole pool: path below `ROOT`, and title, as in `WORKER_CHARTS`.
POOL_CHARTS = {"throughput": "Tasks per second", "queue": "Tasks"}

#: States of a worker besides the names of tasks. `BACK_PRESSURE`: `rr.log` waits for sinks. `ENDED`: the timeline ends.
STARTING, IDLE, BACK_PRESSURE, ENDED = "starting", "idle", "waiting for credit", ""
#: The state of a worker that has died, for use as `LOST.format("SIGKILL")`.
LOST = "lost ({})"
