"""The names by which the telemetry of pools and the layout agree: entity paths, charts, states of workers.

`telemetry` writes rows under these names, and `default.py` makes views of them. They are here, in a module that imports
nothing, because the layout must not depend on the scheduler, which `telemetry` observes.
"""

from __future__ import annotations

#: Everything that mpr records of its own is below this entity.
ROOT = "mpr"
#: One entity for each state timeline.
WORKERS = f"{ROOT}/workers"
#: One entity for each task function.
TASKS = f"{ROOT}/tasks"
#: One entity for each pool.
INSIGHTS = f"{ROOT}/insights"
#: The timeline of the numbers of tasks.
TASK_TIMELINE = "mpr_task"

#: Charts with a line for each worker: path below `ROOT` and title. Each pool of the recording has an entity below it.
WORKER_CHARTS = {"cpu": "CPU (%)", "memory": "Memory (MB)", "threads": "Threads", "files": "Open files"}
#: Charts of the whole pool, in the same way.
POOL_CHARTS = {"throughput": "Tasks per second", "queue": "Tasks"}

#: States of a worker besides its tasks. `BACK_PRESSURE`: its `rr.log` waits for the sinks. `ENDED` ends the timeline.
STARTING, IDLE, BACK_PRESSURE, ENDED = "starting", "idle", "waiting for credit", ""
#: The state of a worker that has died: `LOST.format("SIGKILL")`.
LOST = "lost ({})"
