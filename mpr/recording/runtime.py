"""Starts all parts of a recording, connects pools and processes with it, and ends the parts in a fixed order.

`RecordingRuntime.close` ends the parts in six steps:

1. Leave: this process sends the rest of its own rows. Processes that have joined are asked for their rows. Limit: 5 s
   (`JOINED_FAREWELL_SECS`).
2. Drain: the aggregator handles all messages that were sent before, and its thread ends. Limit: 60 s
   (`SINK_TIMEOUT_SECS`). If a sink hangs longer, an error is raised after step 3, and steps 4 to 6 are left out.
3. Live sinks: each sends the rows that are left. Limit: 3 s (`LIVE_FAREWELL_SECS`). After that, a warning says how many
   chunks each sink has not sent.
4. Gather: with `route='direct'`, the files of the workers are copied into the recording. No limit.
5. Durable sinks: each writes notes, the last layout and a footer, even if another sink fails. No limit.
6. Sockets: they are closed, and their folder is removed.

Covers: sockets, aggregator, fan-out, durable and live sinks, the layout of the viewer, telemetry.
Does not cover: the calls of users (`shared_recording.py`), how sinks are opened (`open_sinks.py`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Sequence
from multiprocessing import util
from typing import Final

from mpr import failpoints, limits
from mpr.aggregator.aggregator import Aggregator
from mpr.aggregator.fanout import Fanout
from mpr.blueprint.contents import Contents
from mpr.blueprint.updates import BlueprintUpdates
from mpr.errors import ConflictError, DeliveryError, RecordingClosedError, SinkError, WrongProcessError
from mpr.recording import gather
from mpr.recording.open_sinks import append, encoded_notes, open_sinks
from mpr.recording.options import RecordingOptions
from mpr.recording.parent import ParentMembership
from mpr.recording.replay import Replay, replay
from mpr.recording.statistics import RecordingStatistics
from mpr.rrd import compat, relabel, store_id, verify
from mpr.sinks.base import Writer
from mpr.threads import EndOnce, aside, run_to_completion
from mpr.transport import ipc_folder
from mpr.transport.connection_info import ConnectionInfo, DirectRoute
from mpr.transport.sockets import Sockets
from mpr.user_code import log as _log

# Tasks may make recordings themselves. The message at the end names up to this many of their files.
_NAMED_FILES = 10


class RecordingRuntime:
    """Holds the running parts of one recording. Users call `SharedRecording`, and pools call this class.

    `options` are the checked arguments of the recording. Raises `SinkError` if a sink cannot be opened. The other sinks
    are closed then, and no file that existed before is changed.
    """

    def __init__(self, options: RecordingOptions) -> None:
        failpoints.arm(0)
        self.options = options
        self._pid = os.getpid()
        self._ending = EndOnce()
        self._pool_numbers = itertools.count(1)
        self._worker_files: gather.WorkerFiles | None = None
        self._direct: DirectRoute | None = None
        ids = (options.application_id, options.recording_id)
        with contextlib.ExitStack() as undo:
            self.sockets: Sockets = Sockets()
            undo.callback(self.sockets.close)
            self._opened = open_sinks(options.sinks, *ids, options.blueprint, self.sockets.folder)
            for writer in self._opened.writers:
                undo.callback(writer.abort)
            if options.route == "direct":
                self._open_direct_route(undo)
            contents = Contents(store_id.store_id(*ids))
            self._blueprint_updates = BlueprintUpdates(
                options.application_id, contents, options.blueprint, pools_visible=options.telemetry_view
            )
            self.fanout: Fanout = Fanout(
                self._opened.writers,
                self._opened.live,
                functools.partial(encoded_notes, "mpr/workers", *ids),
                contents,
                store_id.store_id(*ids),
                apart=all(sink.keeps_tasks_apart for sink in options.sinks),
                has_all=options.route != "direct",
            )
            self.aggregator: Final = Aggregator(self.sockets, self.fanout, has_blueprint=options.blueprint is not None)
            self.aggregator.start()
            undo.pop_all()
        self._log_where_rows_go()
        if self._opened.live is not None:
            self._opened.live.start()
        self.parent: ParentMembership = ParentMembership(self.connection_info(1), self.aggregator.numbers.new_index)
        # At the interpreter's exit, `close` is called before `multiprocessing` waits for child processes.
        close = functools.partial(self.close, failed=False)
        self._at_exit = util.Finalize(None, run_to_completion, (close,), exitpriority=90)

    def _open_direct_route(self, undo: contextlib.ExitStack) -> None:
        """Prepare `route='direct'`: make a folder for the workers' files, and keep the URLs of the live sinks.

        If the recording cannot start, `undo` removes the folder.
        """
        opened = self._opened
        file = next((path for writer in opened.writers for path in writer.paths), None)
        if file is not None:
            self._worker_files = gather.WorkerFiles(file, has_blueprint=self.options.blueprint is not None)
            undo.callback(self._worker_files.abort)
        if opened.writers or opened.live is not None:
            folder = "" if self._worker_files is None else str(self._worker_files.folder)
            self._direct = DirectRoute(folder=folder, urls=opened.open_to_senders)

    def _log_where_rows_go(self) -> None:
        if self._opened.writers and self.options.announces_sink:
            _log.warning("mpr: recording to %s", self._opened.writers[0].name)
        for url in self._opened.served:
            _log.warning("mpr: to be seen at %s", url)

    # --- for users -------------------------------------------------------------------------------------------------

    @property
    def writers(self) -> Sequence[Writer]:
        """The writers of the durable sinks. Empty if logging is switched off, or if all sinks are live."""
        return self._opened.writers

    @property
    def urls(self) -> list[str]:
        return self._opened.urls

    @property
    def closed(self) -> bool:
        """True if `close` was called, even if `close` has not ended yet."""
        return self._ending.begun

    @property
    def is_over(self) -> bool:
        """True if `close` has ended, with or without an error. No row arrives after that."""
        return self._ending.over.is_set()

    def check_usable(self) -> None:
        """Raise `RecordingClosedError` after `close`, and `WrongProcessError` if another process made the recording."""
        if os.getpid() != self._pid:
            raise WrongProcessError(
                f"this recording belongs to process {self._pid}; a child process logs with plain rr.log as a worker "
                "of mpr.Pool, and cannot use its parent's recording or pool"
            )
        if self.closed:
            raise RecordingClosedError(f"the recording {self.options.recording_id} is closed")

    def flush(self, timeout_secs: float) -> None:
        """Wait until every durable sink has all rows that this process has logged.

        Raises `TimeoutError` if this takes more than `timeout_secs` seconds. Raises the error of the sinks, such as
        `SinkError`, if there was one.
        """
        aside(lambda: self._flush(timeout_secs))

    def _flush(self, timeout_secs: float) -> None:
        position = self.parent.flush()
        if position is not None and not self.aggregator.wait_until_accepted(*position, timeout_secs):
            raise TimeoutError(f"the sinks did not take all rows within {timeout_secs} s")
        if self.fanout.failure is not None:
            raise self.fanout.failure

    def stats(self) -> RecordingStatistics:
        live = self._opened.live
        return RecordingStatistics(
            accepted_chunks=self.fanout.accepted_chunks,
            accepted_bytes=self.fanout.accepted_bytes,
            rejected_messages=self.sockets.up.rejected_count,
            processes=len(self.aggregator.pids),
            torn_processes=self.aggregator.incomplete_count,
            counted_rows=self.aggregator.row_totals.counted,
            accepted_rows=self.aggregator.row_totals.accepted,
            lost_rows=self.aggregator.row_totals.lost,
            repeated_tasks=self.aggregator.complete_tasks.repeated,
            live_sinks=() if live is None else tuple(live.stats()),
        )

    def replay(self) -> Replay | None:
        """Return a function that yields all rows (`replay.py`); None if `RERUN=off` has switched logging off.

        Raises `SinkError` if no sink can be read.
        """
        return replay(self.writers) if self.writers or self._opened.live is not None else None

    # --- for pools and other processes -----------------------------------------------------------------------------

    def connection_info(self, workers: int) -> ConnectionInfo:
        """Return the data by which processes join the recording.

        `workers` is the number of processes that share the memory for outboxes (`limits.outbox_limit`).
        """
        return ConnectionInfo(
            application_id=self.options.application_id,
            recording_id=self.options.recording_id,
            folder=self.sockets.folder,
            upstream=self.sockets.up.endpoint,
            downstream=self.sockets.down.endpoint,
            secret=self.sockets.secret,
            place=ipc_folder.place_of(self.sockets.folder),
            machine=ipc_folder.machine(),
            outbox_bytes=limits.outbox_limit(workers),
            marks_tasks=any(sink.keeps_tasks_apart for sink in self.options.sinks),
            keeps_apart=all(sink.keeps_tasks_apart for sink in self.options.sinks),
            is_watched=any(sink.is_live or sink.is_readable for sink in self.options.sinks),
            direct=self._direct,
        )

    def obstacle(self) -> str | None:
        """Return a text: why no process can join, and which sinks have the rows. Return None if processes can join."""
        reason = self.sockets.obstacle()
        return reason and f"{reason}. {self._where_rows_are()}"

    def _where_rows_are(self) -> str:
        names = ", ".join(writer.name for writer in self.writers) or "the viewers"
        return f"The rows of all results that you have are in {names}"

    def new_worker(self) -> int:
        """Return a number that no other process of the recording has."""
        return self.aggregator.numbers.new_process()

    def new_pool(self, size: int, kinds: frozenset[str]) -> int:
        """Add a pool (`size` workers, telemetry `kinds`) to the layout. Return the number of the pool, from 1."""
        self._blueprint_updates.add_pool(size, kinds)
        return next(self._pool_numbers)

    def accept_telemetry(self, stream: bytes) -> None:
        """Have the aggregator write `stream`, an encoded stream of telemetry or b"", with the ids of the recording.

        Does not wait. If there is a live sink or a `BinaryStreamSink`, a new layout is written too. Nothing is written
        if there is no durable sink, if mpr does not know the SDK's file format, or if the aggregator has ended.
        """
        if not self._takes_telemetry():
            return
        if stream:
            store = store_id.store_id(self.options.application_id, self.options.recording_id)
            self._write_telemetry(relabel.relabelled(stream, store))
        layout, is_new = self._blueprint_updates.refresh()
        # A file needs the layout only at the end of the recording, but a viewer needs a new layout at once.
        is_watched = any(sink.is_readable for sink in self.options.sinks)
        if is_new and (is_watched or self._opened.live is not None):
            self._write_telemetry(layout)

    def _takes_telemetry(self) -> bool:
        return bool(self._opened.writers) and compat.format_is_known() is None

    def _write_telemetry(self, stream: bytes) -> None:
        def write() -> None:
            # If the aggregator's thread has ended, the calling thread runs this function. The sinks may be closed then.
            if not self.aggregator.ended:
                self.fanout.write_stream(stream, telemetry=True)

        self.aggregator.soon(write)

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self, *, failed: bool) -> None:
        """End all parts. A second call waits until the first call has ended. Does nothing in a forked child.

        `failed` is true if the `with` block has raised. A file without a row of the user then does not replace an older
        file. Raises the errors of `SharedRecording.close`.
        """
        if os.getpid() == self._pid:
            self._ending.run(functools.partial(self._end, failed=failed))

    def _end(self, *, failed: bool) -> None:
        self._at_exit.cancel()
        self.parent.close()
        if not self.aggregator.flush_requests.collect(limits.JOINED_FAREWELL_SECS):
            _log.warning("mpr: not all processes that have joined have sent their last rows in time")
        drained = self.aggregator.stop(limits.SINK_TIMEOUT_SECS)
        missed = [] if self._opened.live is None else self._opened.live.finish()
        for words in missed:
            _log.warning("mpr: %s", words)
        if not drained:
            raise self.fanout.stuck()
        self.fanout.stop_feeding()
        _take_noted_losses(self.sockets, self.fanout)
        try:
            if self._worker_files is not None:
                self._worker_files.gather(self.fanout)
            unfinished = self._close_writers(missed, discard_unpublished=failed)
        finally:
            if (gone := self.sockets.loss()) is not None:
                text = "mpr: while the recording was open, %s. Later no process could join. %s"
                _log.error(text, gone, self._where_rows_are())
            self.sockets.close()
        self._name_other_files()
        failure = self.fanout.failure or unfinished
        if failure is not None:
            raise failure
        if self._worker_files is not None:
            self._worker_files.remove([path for writer in self.writers for path in writer.paths])
        if (loss := self.aggregator.row_totals.loss()) and not failed:
            raise DeliveryError(loss)
        if self.fanout.conflicts and not failed:
            raise ConflictError(
                f"{'; '.join(self.fanout.conflicts)}. All rows are in the recording, but Rerun knows one type of "
                "each, and shows the others wrongly or not at all: give them different names"
            )

    def _close_writers(self, notes: list[str], *, discard_unpublished: bool) -> SinkError | None:
        """Write the last layout, `notes` and the number of rows to all durable sinks, and close each of them.

        Returns the first error, or None. If one sink fails, the others are still closed. If `discard_unpublished` is
        true, writers that are not `published` are aborted, so that an older file stays.
        """
        failpoints.reach("parent.closing")
        failure = None
        layout, _ = self._blueprint_updates.refresh() if self._takes_telemetry() else (b"", False)
        ids = (self.options.application_id, self.options.recording_id)
        stream = encoded_notes("mpr/sinks", *ids, notes) if notes else b""
        for writer in self.fanout.writers:
            try:
                if discard_unpublished and not writer.published:
                    writer.abort()
                else:
                    if layout:
                        # The error is ignored. If the disk or the file is the reason, `close` raises an error, too.
                        with contextlib.suppress(SinkError):
                            append(writer, layout, telemetry=True)
                    if stream:
                        append(writer, stream)
                    self._write_count(writer)
                    writer.close()
            except SinkError as error:
                failure = failure or error
        return failure

    def _write_count(self, writer: Writer) -> None:
        """Write the number of rows with times, and the number of lost rows, to the sink of `writer`, for `mpr verify`.

        Nothing is written if no pool records telemetry (the recording then has only rows of the user), if the sink
        cannot count its rows, or if mpr does not know the file format of the SDK.
        """
        wanted = self._takes_telemetry() and self._blueprint_updates.records_telemetry
        rows = writer.timed_rows() if wanted else None
        if rows is not None:
            store = store_id.store_id(self.options.application_id, self.options.recording_id)
            append(writer, verify.encoded_count(store, rows, self.aggregator.row_totals.lost))

    def _name_other_files(self) -> None:
        made = [path for writer in self.writers for path in writer.other_files]
        if made:
            names = ", ".join(path.name for path in made[:_NAMED_FILES])
            dots = ", ..." if len(made) > _NAMED_FILES else ""
            _log.warning("mpr: recordings that tasks or scripts have made are in %s: %s%s", made[0].parent, names, dots)


def _take_noted_losses(sockets: Sockets, fanout: Fanout) -> None:
    """Report the lost rows of processes that could not join: in the log, as a note in the recording, and as an error.

    Such a process has written a text into a file in the folder of `sockets`. The error is a `DeliveryError`, which the
    end of the recording raises.
    """
    for loss in ipc_folder.noted_losses(sockets.folder):
        _log.error("mpr: %s", loss)
        fanout.note([loss])
        fanout.give_up(DeliveryError(loss))
