"""The names that the telemetry of pools and the layout share: entity paths, charts, states of workers.

`telemetry` writes rows under these names, and `default.py` makes views of these rows. This module imports nothing,
because the layout must not depend on the scheduler, which `telemetry` imports.
"""

from __future__ import annotations

#: The entity above all entities that mpr itself logs.
ROOT = "mpr"
#: Has one entity below it for each state timeline.
WORKERS = f"{ROOT}/workers"
#: Has one entity below it for each task function.
TASKS = f"{ROOT}/tasks"
#: Has one entity below it for each pool.
INSIGHTS = f"{ROOT}/insights"
#: The timeline on which rows about a task are at the number of this task in its pool.
TASK_TIMELINE = "mpr_task"

#: Charts with a line for each worker: path below `ROOT`, and title. Below this path, each pool has an entity.
WORKER_CHARTS = {"cpu": "CPU (%)", "memory": "Memory (MB)", "threads": "Threads", "files": "Open files"}
#: Charts of a whole pool: path below `ROOT`, and title, as in `WORKER_CHARTS`.
POOL_CHARTS = {"throughput": "Tasks per second", "queue": "Tasks"}

#: States of a worker besides the names of tasks. `BACK_PRESSURE`: `rr.log` waits for sinks. `ENDED`: the timeline ends.
STARTING, IDLE, BACK_PRESSURE, ENDED = "starting", "idle", "waiting for credit", ""
#: The state of a worker that has died, for use as `LOST.format("SIGKILL")`.
LOST = "lost ({})"
