"""Writes an `.rrd` file: copies encoded frames into the file, and closes it with one merged manifest per store.

A store is a recording or a blueprint. Only the first store info of each store is written. With
`FileSink(write_footer=False)`, the file gets no manifests.

Covers: copying frames, collecting manifests, the check by the SDK at the end.
Does not cover: the file's name and lock (`part_file.py`), the footer (`footer.py`), and formats that mpr does not know
(`sinks/decoding.py`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mpr import errors, files
from mpr.errors import SinkError
from mpr.rrd import framing, manifest, store_id
from mpr.rrd.byte_log import ByteLog
from mpr.rrd.footer import ManifestMaker
from mpr.rrd.manifest import ChunkLocation, Manifest, OffsetMap
from mpr.rrd.manifest_store import ManifestStore
from mpr.rrd.part_file import OutputFile, PartFile, TakenAwayError
from mpr.rrd.segment import PREAMBLE, MessageBytes, Segment, runs
from mpr.sdk import programs, reader
from mpr.user_code import log as _log

# If the chunks to be counted have more bytes than this together, `rows_of` does not read them again, and returns None.
# Reading this many bytes takes some hundredths of a second. Meanwhile the thread of the aggregator serves no producer.
_QUICK_BYTES = 8 * 1024 * 1024
# If a file has more chunks than this, another process checks the file when it is closed. That is slower, but takes no
# memory of this process.
_MANY_CHUNKS = 20_000


class FileWriter:
    """Writes one `.rrd` file. Call `open` or `begin`, then `accept` for each segment, and then `close` or `abort`.

    Parameters
    ----------
    path:
        The path of the finished file.
    file:
        The file to write to. By default, this is a `PartFile` of `path`.
    write_footer:
        True if the file gets a footer when it is closed.
    compact:
        True if the SDK merges small chunks when the file is closed. A file without a footer is not changed.

    Raises
    ------
    SinkError
        If `file` is None, and the file cannot be made or replaced, or another recording writes it.
    """

    def __init__(
        self, path: Path, file: OutputFile | None = None, *, write_footer: bool = True, compact: bool = False
    ) -> None:
        self._write_footer = write_footer
        self._compact = compact
        if file is None:
            file = PartFile(path)
            path = file.path
        self.path: Path = Path(os.path.abspath(path))
        self._file: OutputFile = file
        self._log = ByteLog(self._file)
        # The maker has the header of the file, and one store info of each store.
        self._manifest_maker = ManifestMaker(fd=self._file.fd)
        # Per outbox: the offsets of its bytes in this file.
        self._offsets: dict[int, OffsetMap] = {}
        # Per outbox: (offset in this file, size) of the chunks that no manifest has described yet. The pairs are bare
        # numbers in one array, because there may be hundreds of thousands of pairs.
        self._undescribed: dict[int, array[int]] = {}
        self._manifest_store = ManifestStore(self.path.parent)
        self._is_distrusted = False

    def open(self, preamble: bytes) -> None:
        """Begin the file with `preamble`: a whole stream with the store info and the properties of the recording.

        Raises `SinkError` if the disk reports an error, and `FormatError` if the header has an unknown format.
        """
        self.begin(preamble[: framing.HEADER_SIZE])
        frames = framing.frames_of(preamble)
        last = frames.pop()
        self.accept(Segment(PREAMBLE, MessageBytes(0, preamble), frames), published=False)
        self.add_manifests(PREAMBLE, preamble[last.payload : last.end])

    def begin(self, header: bytes) -> None:
        """Begin the file with only `header`, the header of a stream.

        Raises `SinkError` if the disk reports an error, and `FormatError` if the header has an unknown format.
        """
        framing.check_header(header)
        self._manifest_maker.begin(header)
        try:
            self._write(header)
        except OSError as error:
            raise self._failure("write", error) from error
        self._log.grow(len(header))

    def accept(self, segment: Segment, *, published: bool) -> None:
        """Write the frames of `segment`, except store infos of stores that the file already has.

        Readers can then read the frames. If `published` is true, the file gets its final name now, unless it has this
        name already. Raises `SinkError` if the disk reports an error, or if another program has changed the file. After
        any error, the incomplete segment is removed from the file again, if possible.
        """
        offsets = self._offsets.setdefault(segment.outbox, OffsetMap())
        undescribed = self._undescribed.setdefault(segment.outbox, array("Q"))
        end = self._log.end
        try:
            self._file.check(end)
            for start, stop in runs(self._new_frames(segment)):
                segment.source.copy(self._file.fd, start, stop - start)
                offsets.add(start, end)
                end += stop - start
            self._file.check(end)
            if published:
                self._file.publish()
        except BaseException as error:
            self._file.cut(self._log.end)
            if isinstance(error, OSError):
                raise self._failure("write", error) from error
            raise
        self._log.grow(end)
        if not self._write_footer:
            return
        for frame in segment.frames:
            if frame.kind == framing.ARROW_MSG:
                undescribed.extend((offsets.target(frame.start), frame.size))

    def _new_frames(self, segment: Segment) -> Iterator[framing.Frame]:
        """Yield all frames of `segment`, except store infos of known stores. Remember the other stores as known."""
        for frame in segment.frames:
            if frame.kind == framing.SET_STORE_INFO:
                payload = segment.source.read(frame.payload, frame.size)
                store = store_id.store_id_of_info(payload)
                if not self._manifest_maker.add_store(store, payload):
                    continue
            yield frame

    def add_manifests(self, outbox: int, footer: bytes) -> None:
        """Add the manifests in `footer`, the payload of the `END` frame of `outbox`.

        If mpr cannot read one of them, or if they do not describe exactly the written chunks, all of them are left out
        with a warning. The SDK makes new ones when the file is closed.
        """
        try:
            self.take_manifests(outbox, manifest.parse(footer))
        except Exception as error:  # noqa: BLE001  # Arrow raises errors of many types for columns that are not as known
            # No chunk is lost, because the SDK makes another manifest of these chunks when the file is closed.
            _log.warning("mpr does not understand a manifest of the Rerun SDK: %s", error)

    def take_manifests(self, outbox: int, manifests: Sequence[Manifest]) -> None:
        """Add manifests of the chunks that were written from `outbox`. The offsets in them are offsets in the outbox.

        Does nothing if the file gets no footer, or if nothing was written from this outbox since its last manifests.
        Raises `FormatError` if `manifests` do not describe exactly the chunks that were written from this outbox.
        """
        offsets = self._offsets.get(outbox)
        if offsets is not None and self._write_footer:
            moved = [manifest.moved(each, offsets) for each in manifests]
            if sorted(manifest.all_locations(moved)) != sorted(_places(self._undescribed[outbox])):
                raise errors.FormatError("it does not describe the chunks that came")
            self._manifest_store.add(moved)
            del self._offsets[outbox], self._undescribed[outbox]

    def distrust(self) -> None:
        """Make `close` check all rows, and drop those that the SDK cannot decode.

        Call this if a process has sent damaged bytes, which could make the file unreadable. Without a footer, this has
        no effect.
        """
        self._is_distrusted = True

    def rows_of(self, outbox: int, skip: int, *, users_only: bool = True) -> int | None:
        """Read the chunks of `outbox` that no manifest describes, and return the number of their rows.

        The first `skip` chunks are not counted. If `users_only` is true, rows of mpr itself and properties of the
        recording are not counted either. Returns None if the file gets no footer, if the chunks have more than 8 MiB
        together, or if they cannot be read.
        """
        places = _places(self._undescribed.get(outbox, array("Q")))[skip:]
        if not self._write_footer or sum(size for _, size in places) > _QUICK_BYTES:
            return None
        try:
            count = functools.partial(manifest.row_count, users_only=users_only)
            return sum(map(count, self._manifest_maker.described(places)))
        except Exception as error:  # noqa: BLE001  # the SDK and Arrow raise errors of many types for damaged chunks
            _log.debug("the rows of a worker that has died cannot be counted: %r", error)
            return None

    def timed_rows(self) -> int | None:
        """Return the number of rows with times (not static rows) of all recordings in the file.

        Returns None if the file gets no footer, or if a chunk cannot be read.
        """
        if not self._write_footer:
            return None
        try:
            self._describe_rest()
        except (OSError, errors.FormatError, KeyError, ValueError, TypeError, RuntimeError) as error:
            # `close` is called later, meets the same error, and reports the error.
            _log.debug("the rows of %s cannot be counted: %r", self.path, error)
            return None
        described = self._manifest_store.all()
        return sum(manifest.timed_rows(each) for each in described if store_id.is_recording(each.store_id))

    def _describe_rest(self) -> None:
        """Have the SDK read all chunks that no manifest describes, make manifests of these chunks, and keep them.

        If the SDK cannot read a chunk, it raises an error of any type.
        """
        for outbox, missing in list(self._undescribed.items()):
            self._manifest_store.add(self._manifest_maker.described(_places(missing)))
            del self._undescribed[outbox]

    def close(self) -> None:
        """Write the footer, give the file its final name, and check the file with the SDK's own reader.

        If the reader refuses the file, the SDK writes the file anew. If the file gets no footer, it is not checked.
        Raises `SinkError` if the disk reports an error, if the file cannot be written anew, or if another program has
        changed the file. In the first two cases, the written rows can be read, but the footer may be missing.
        """
        try:
            self._close()
        except OSError as error:
            # Some are no `SinkError`, because the SDK's command cannot be run.
            failure = error if isinstance(error, SinkError) else self._failure("check", error)
            self._log.finish(failure)
            raise failure from (None if failure is error else error)
        self._log.finish()

    def _close(self) -> None:
        refused = None
        try:
            self._file.check(self._log.end)
            try:
                closing = self._closing() if self._write_footer else b""
                self._write(closing)
                self._log.grow(self._log.end + len(closing))
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001  # as in `rows_of`
                refused = f"no manifest can be made: {error!r}"
            self._file.publish()
        except OSError as error:
            self._file.cut(self._log.end)
            self._file.close()
            raise self._failure("finish", error) from error
        self._file.close()
        if not self._write_footer:
            return
        refused = refused or (programs.verify(self.path) if self._is_distrusted else self._refusal())
        if refused is not None and self._is_distrusted:
            _log.warning("%s is written anew without rows that the Rerun SDK cannot decode (%s)", self.path, refused)
            self._write_anew(programs.rewrite)
        elif refused is not None:
            self._rebuild(refused)
        if self._compact:
            self._write_anew(programs.optimize)

    def _refusal(self) -> str | None:
        """Return the error that the SDK's reader raises for the finished file, as text; None if there is none."""
        if self._manifest_store.chunks > _MANY_CHUNKS:
            # `OSError`: the other process cannot be started, or has not ended in time. That is no fault of the file, so
            # this process reads the file.
            with contextlib.suppress(OSError):
                return programs.refusal(self.path)
        return reader.refusal(self.path)

    def _closing(self) -> bytes:
        self._describe_rest()
        return self._manifest_maker.closing(self._log.end, self._manifest_store.all())

    def _failure(self, verb: str, error: OSError) -> SinkError:
        """Return a `SinkError` for `error`. `verb` says what could not be done with the file, such as "write"."""
        text = f"cannot {verb} {self.path}: {error.strerror or error}"
        if self.published and not isinstance(error, TakenAwayError):
            text += f". The rows of every result that you have are in it, without a footer: mpr recover {self.path}"
        return SinkError(error.errno, text)

    @property
    def log(self) -> ByteLog:
        """The log of the accepted bytes of the file."""
        return self._log

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def paths(self) -> Sequence[Path]:
        return [self.path]

    @property
    def published(self) -> bool:
        """True if the file has its final name, or if other code may already read the file in another way."""
        return self._file.published

    def abort(self) -> None:
        """Close the file without a footer, and remove it if it has no final name. Readers of `log` get an error."""
        self._log.finish(SinkError("the stream ends before its recording: a sink has failed"))
        self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fd, view) :]

    def _rebuild(self, refused: str) -> None:
        """Log an error with the reason `refused`, and have the SDK write the file anew.

        Raises `SinkError` if the disk reports an error, or if the SDK cannot write the file.
        """
        _log.error(
            "The footer of %s is not accepted by the Rerun SDK (%s); the file is being rebuilt by 'rerun rrd merge'. "
            "No row is lost. Please report this.",
            self.path,
            refused,
        )
        self._write_anew(programs.rewrite)

    def _write_anew(self, write: Callable[[Path, int], None]) -> None:
        """Have `write(path, fd)` write a new file to the descriptor `fd`, and replace this file by the new file.

        Raises `SinkError` if the disk reports an error, or if `write` raises `OSError`. The file then stays as it is.
        """
        try:
            with files.temporary_beside(self.path, ".rebuilt") as (fd, rebuilt):
                write(self.path, fd)
                os.fchmod(fd, stat.S_IMODE(self.path.stat().st_mode))
                os.replace(rebuilt, self.path)
        except OSError as error:
            raise self._failure("rebuild", error) from error


def _places(numbers: array[int]) -> list[ChunkLocation]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))
