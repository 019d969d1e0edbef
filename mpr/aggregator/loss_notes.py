"""Makes sentences about lost rows of recordings that the tasks of a process have made themselves."""

from __future__ import annotations

from mpr.transport.messages import Hello


def loss_notes(hello: Hello, unsent_rows: int, lost_results: int) -> list[str]:
    """Return a sentence for each kind of loss of the process that has sent `hello`; an empty list if nothing is lost.

    `unsent_rows` is the number of rows of such recordings that the process had not sent when it ended. `lost_results`
    is the number of results in the worker's journal that the parent does not use, because rows of their tasks were
    lost.
    """
    who = f"worker {hello.worker}" if hello.worker else "a process"
    ended = f"{who} (pid {hello.pid}) ended"
    notes = []
    # If a recording has no sink, the SDK keeps its rows in the memory of the process, until mpr takes and sends them.
    if unsent_rows:
        notes.append(
            f"{ended} with {unsent_rows} {'row' if unsent_rows == 1 else 'rows'} in recordings that its tasks had made "
            "themselves, and they are lost: such rows are taken at the end of each task"
        )
    if lost_results:
        notes.append(
            f"{ended} before rows of recordings that its tasks had made themselves were handed over, and they are "
            "lost: the tasks count as lost with the worker"
        )
    return notes
