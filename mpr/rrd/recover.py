"""Makes a valid file from a file that a killed process has left.

Such a file has no footer, has an incomplete message at its end, or is still a `.part` file.

Covers: finding the whole frames, making their footer, and replacing the file.
Does not cover: files that a living process writes. They are refused, because they are locked.

The original stays until the new file has passed `rerun rrd verify`. For the manifest, the SDK decodes a few chunks at a
time. Nothing else is decoded, so the memory that is needed does not grow with the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpr import errors
from mpr.errors import SinkError
from mpr.rrd import framing, store_id
from mpr.rrd.footer import ManifestMaker
from mpr.sdk import programs, reader

_PART = re.compile(r"\.(.+)\.part")
_TEMPORARY = ".recovered"
# The number of bytes of a file that one system call copies.
_COPY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The result of recovering one file.

    Attributes
    ----------
    path:
        The valid file.
    was_whole:
        Whether the file was valid before, so that it was not changed.
    chunk_count:
        The number of chunks in the file. None if the file was whole, or if the SDK wrote the file anew.
    dropped_bytes:
        The number of bytes of the original that the valid file lacks, because they are no whole messages.
    original:
        The new path of the original if the original is kept, else None. It is kept if the valid file may lack more
        than an incomplete message at the end.
    """

    path: Path
    was_whole: bool = False
    chunk_count: int | None = None
    dropped_bytes: int = 0
    original: Path | None = None


def find(path: Path) -> list[Path]:
    """Return the files to recover for `path`.

    If `path` is a folder, return all `.rrd` and `.rrd.part` files in it. If `path` is missing and its `.part` file
    exists, return the `.part` file. Otherwise return `path`.
    """
    if path.is_dir():
        parts = (each for each in sorted(path.rglob(".*.rrd.part")) if each.is_file())
        return [*(each for each in sorted(path.rglob("[!.]*.rrd")) if each.is_file()), *parts]
    part = path.with_name(f".{path.name}.part")
    return [part] if part.exists() and not path.exists() else [path]


def recover(path: Path) -> Recovered:
    """Make the file at `path` valid, and keep every whole message in it.

    A `.part` file gets its final name. Raises `SinkError` if a living process writes the file, if the file is not a
    Rerun file, or if the disk reports an error. The file is then unchanged.
    """
    try:
        with _locked(path) as fd:
            return _recover(path, fd)
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        raise SinkError(error.errno, f"cannot recover {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Yield a descriptor of the file, and lock the file so that no other process writes or recovers it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SinkError(
                error.errno, f"{path} is being written by a process that lives: it needs no recovery, or not yet"
            ) from error
        yield fd
    finally:
        os.close(fd)


def _recover(path: Path, fd: int) -> Recovered:
    part = _PART.fullmatch(path.name)
    target = path.with_name(part[1]) if part else path
    if part and target.exists():
        raise SinkError(17, f"{path} belongs to {target}, which is there already: move one of them away")
    # The first check is cheap and finds most errors. Only the second check reads the whole file.
    if not part and reader.refusal(path) is None and programs.verify(path) is None:
        return Recovered(path=path, was_whole=True)
    temporary = target.with_name(f".{target.name}{_TEMPORARY}")
    try:
        result = _write_anew(path, fd, target, temporary)
        refused = programs.verify(temporary)
        if refused is not None and result.chunk_count is not None:
            # The content of some whole messages is broken, so the SDK copies the messages that it can read.
            result = _rewritten_by_sdk(path, target, temporary)
            refused = programs.verify(temporary)
        if refused is not None:
            raise SinkError(f"{path} cannot be recovered, and is as it was: {refused}")
        shutil.copymode(path, temporary)
        if part:
            # `os.link` is used because, unlike `os.replace`, it never replaces a file that was made meanwhile.
            os.link(temporary, target)
            path.unlink()
        else:
            if result.original is not None:
                os.link(path, result.original)
            os.replace(temporary, target)
        return result
    finally:
        temporary.unlink(missing_ok=True)


def _write_anew(path: Path, fd: int, target: Path, temporary: Path) -> Recovered:
    def read(offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    size = os.fstat(fd).st_size
    header = read(0, framing.HEADER_SIZE)
    if len(header) < framing.HEADER_SIZE or header[:4] != framing.FOURCC:
        raise SinkError(f"{path} is not a recording of Rerun, or was cut before its first message: it is as it was")
    damaged = False
    try:
        framing.check_header(header)
        frames, _ = framing.scan(read, framing.HEADER_SIZE, size)
    except framing.DamagedError as error:
        frames, damaged = error.frames, True
    except errors.FormatError:
        return _rewritten_by_sdk(path, target, temporary)
    rest = size
    if frames and frames[-1].kind == framing.END:
        end = frames.pop()
        # The footer may be incomplete, or it may be zeros after a power failure.
        rest = end.start
        if end.size and size > end.end + framing.STREAM_FOOTER_SIZE:
            # The file has several streams one behind the other, and only the SDK can merge them.
            return _rewritten_by_sdk(path, target, temporary)
    if not frames:
        raise SinkError(f"there is no whole message in {path}: it is as it was")
    end_of_frames = frames[-1].end
    manifest_maker = ManifestMaker(fd=fd, header=header)
    for frame in frames:
        if frame.kind == framing.SET_STORE_INFO:
            payload = read(frame.payload, frame.size)
            manifest_maker.store_infos[store_id.store_id_of_info(payload)] = payload
    places = [(frame.start, frame.size) for frame in frames if frame.kind == framing.ARROW_MSG]
    try:
        closing = manifest_maker.closing(end_of_frames, manifest_maker.described(places))
    except (errors.FormatError, KeyError, ValueError, RuntimeError):
        return _rewritten_by_sdk(path, target, temporary)
    _copy(fd, temporary, end_of_frames, closing)
    return Recovered(
        path=target,
        chunk_count=len(places),
        dropped_bytes=rest - end_of_frames,
        original=_name_for_original(target) if damaged else None,
    )


def _copy(fd: int, temporary: Path, size: int, closing: bytes) -> None:
    with temporary.open("wb") as out:
        done = 0
        while done < size:
            copied = os.pread(fd, min(_COPY_BYTES, size - done), done)
            out.write(copied)
            done += len(copied)
        out.write(closing)
        out.flush()
        os.fsync(out.fileno())


def _rewritten_by_sdk(path: Path, target: Path, temporary: Path) -> Recovered:
    programs.rewrite(path, temporary)
    return Recovered(path=target, original=_name_for_original(target))


def _name_for_original(target: Path) -> Path:
    numbers = iter(range(1, 1000))
    name = target.with_name(f"{target.name}.damaged")
    while name.exists():
        name = target.with_name(f"{target.name}.damaged-{next(numbers)}")
    return name
