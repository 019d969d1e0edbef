"""Decides which worker runs which task, and what the death of a worker means for its tasks.

```
callers ── calls ──► dispatcher ──► ready_workers ── work items ──► workers
   ▲                                                                   │ results, after their rows
   └── outcomes ── delivery ◄── worker_events ◄── aggregator ◄─────────┘
```

`dispatcher` accepts calls, `worker_events` receives the reports of the aggregator, and `deadlines` checks time limits.
These three modules change the shared state of the pool in `books`, under one lock. Unpickling a result and calling a
callback run code of a user, which may raise anything. `outcomes` unpickles the results, and `callbacks` calls the
callbacks. An error of this code becomes the outcome of the task, or a line in the log.

The docstrings of this package use these words:

- A caller is a thread of the user that calls a method of the pool. Its call has one or more tasks.
- A work item is one task, or several tasks of one call, that a worker gets in one message.
- The outcome of a task is its result or its error. A task is settled when it has its outcome.
- An attempt is one run of a task. If a worker dies, the pool may retry the task: this is the next attempt.
- A worker is ready when it can run tasks. Its hello is its first message, which has its number and its process id.
- The status page of a worker is memory that worker and parent share. It says which task the worker runs.
- The position of a worker is the work item and the task that the worker runs, or will run next (`At`).
- To take back a work item is to tell the worker, through its status page, that it must not run the item.
- A feeder is the part of an `imap` call that submits the tasks of the call little by little.
- An observer gets a call for each event of tasks and workers. It is a progress bar, or writes telemetry.
- The supervisor starts and kills the worker processes of a pool (`worker_supervisor`).
- An engine (Ray, Dask, an executor) runs the tasks of a pool in place of workers of mpr.

Covers: work items, assignment, retries, deadlines, starting and replacing workers.
Does not cover: rows (`aggregator`) and the results that a user holds (`pool`).
May import: transport, processes, rrd, aggregator.
"""
