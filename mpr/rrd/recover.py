"""Makes a valid file from a file that a killed process has left.

Such a file has no footer, has an incomplete message at its end, or still has its first name, `.<name>.part`. A message
is one frame of the file (`framing.py`).

Covers: making the new file, and replacing the old one.
Does not cover: finding the whole messages (`survey.py`), and making their footer (`footer_process.py`).

The original stays until the new file has passed `rerun rrd verify`. The SDK reads the original only in other processes,
because it may be damaged, or made by an attacker, and so may crash the SDK.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpr import files
from mpr.errors import FormatError, SinkError
from mpr.rrd import footer_process, framing, store_id
from mpr.rrd.footer_process import Chunks
from mpr.rrd.manifest import OffsetMap
from mpr.rrd.survey import Survey, reader_of, survey
from mpr.sdk import programs

_PART = re.compile(r"\.(.+)\.part")
_TEMPORARY = ".recovered"
# The largest number of bytes that are read from the original at a time.
_COPY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """The result of recovering one file.

    Attributes
    ----------
    path:
        The valid file.
    was_whole:
        True if the file was valid already, and was not changed.
    chunk_count:
        The number of chunks in the file. None if the file was valid already, or if the SDK wrote the file anew.
    dropped_bytes:
        The number of bytes of the original that are not in the valid file: bytes that are no whole messages, and chunks
        that the SDK cannot read. A footer is not counted. 0 if the file was valid already. Also 0 if the SDK wrote the
        file anew, because the number is then not known.
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
    """Return the paths of the files to recover for `path`.

    For a folder, these are the files `*.rrd` and `.*.rrd.part` in it and in its subfolders, but no links. A subfolder
    that cannot be read is one of the paths, too. For a missing file, the path of its `.part` file is returned if that
    file exists. In all other cases, `path` itself is returned.
    """
    if path.is_dir():
        return _in_folder(path)
    part = path.with_name(f".{path.name}.part") if path.name else path
    return [part] if os.path.lexists(part) and not os.path.lexists(path) else [path]


def _in_folder(folder: Path) -> list[Path]:
    found: list[Path] = []
    parts: list[Path] = []
    closed: list[Path] = []
    for place, _, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        for name in names:
            path = Path(place, name)
            is_part = _PART.fullmatch(name) is not None and name.endswith(".rrd.part")
            if not is_part and (name.startswith(".") or not name.endswith(".rrd")):
                continue
            with contextlib.suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    (parts if is_part else found).append(path)
    return [*sorted(found), *sorted(parts), *closed]


def recover(path: Path) -> Recovered:
    """Make the file at `path` valid, and keep the whole messages in it that the SDK can read. Return what was done.

    Messages behind bytes that cannot be a frame may be lost (see `Recovered.original`). A `.part` file gets its final
    name. If `path` is a link, the file that it leads to is made valid, and the link stays.

    Raises `SinkError` if the file cannot be made valid, for example because a living process writes it or because it
    has no whole chunk. This function then leaves the contents of the file as they are.
    """
    try:
        if path.is_dir():
            # Raises `OSError` if the folder cannot be read.
            os.listdir(path)
        path = path if _PART.fullmatch(path.name) else files.without_link(path)
        with _locked(path) as fd:
            return _recover(path, fd)
    except (OSError, ValueError) as error:
        if isinstance(error, SinkError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise SinkError(getattr(error, "errno", None), f"cannot recover {path}: {reason}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open the file at `path` for reading, lock it within the `with` block, and yield its descriptor.

    The lock keeps other processes of mpr from writing the file. Raises `SinkError` if another process has locked the
    file, and `OSError` if the file cannot be opened.
    """
    fd = files.open_regular(path, os.O_RDONLY)
    try:
        try:
            files.lock(fd)
        except BlockingIOError as error:
            raise SinkError(
                error.errno, f"{path} is being written by a process that lives: it needs no recovery, or not yet"
            ) from error
        yield fd
    finally:
        os.close(fd)


def _recover(path: Path, fd: int) -> Recovered:
    part = _PART.fullmatch(path.name)
    target = path.with_name(part[1]) if part else path
    if part and os.path.lexists(target):
        raise SinkError(errno.EEXIST, f"{path} belongs to {target}, which is there already: move one of them away")
    before = os.fstat(fd)
    found = _surveyed(path, fd, before.st_size)
    # The first checks are cheap and find most errors. Only `programs.verify` reads the whole file.
    seems_whole = found is not None and found.has_footer and not found.is_damaged and framing.is_finished(path)
    if not part and seems_whole and programs.refusal(path) is None and programs.verify(path) is None:
        return Recovered(path=path, was_whole=True)
    with contextlib.ExitStack() as stack:
        result = refused = None
        out, temporary = stack.enter_context(files.temporary_beside(target, _TEMPORARY))
        if found is not None:
            result = _rebuilt(fd, out, target, found, before.st_size)
            refused = programs.verify(temporary)
        if result is None or refused is not None:
            # The format is not known, or the SDK refuses the new file. So the SDK itself copies all that it can read.
            # If there is a new file, the SDK reads the new file, because each error in the original takes it long.
            source = path if found is None else temporary
            out, temporary = stack.enter_context(files.temporary_beside(target, _TEMPORARY))
            programs.rewrite(source, out)
            result = Recovered(path=target, original=_name_for_original(target))
            refused = programs.verify(temporary)
            with contextlib.suppress(FormatError):
                if not survey(reader_of(out), os.fstat(out).st_size).chunk_count:
                    refused = refused or "the Rerun SDK can read none of its messages"
        if refused is not None:
            raise SinkError(f"{path} cannot be recovered, and is as it was: {refused}")
        _check_unchanged(path, fd, before)
        os.fchmod(out, stat.S_IMODE(before.st_mode))
        os.fsync(out)
        if result.original is not None:
            os.link(path, result.original)
        if part:
            # `os.link` is used because, unlike `os.replace`, it never replaces a file that was made meanwhile.
            os.link(temporary, target)
            path.unlink()
        else:
            os.replace(temporary, target)
        return result


def _check_unchanged(path: Path, fd: int, before: os.stat_result) -> None:
    """Raise `SinkError` if another process has changed or replaced the file at `path` since `before`.

    `fd` is a descriptor of the file, and `before` is an earlier result of `os.fstat(fd)`. Raises `OSError` if there is
    no file at `path` any more.
    """
    now = os.fstat(fd)
    is_same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if not is_same or not os.path.samestat(now, os.lstat(path)):
        raise SinkError(f"{path} was changed by another process meanwhile: it is as that process has left it")


def _surveyed(path: Path, fd: int, size: int) -> Survey | None:
    """Return the messages of the file at `path`; None if mpr does not know its format, or if it has several streams.

    `fd` is a descriptor of the file, and `size` is its size in bytes. Raises `SinkError` if the file is not a Rerun
    file, or has no whole chunk.
    """
    if not size:
        raise SinkError(f"{path} is empty: it was made for a recording, and its process wrote nothing: it is as it was")
    header = os.pread(fd, framing.HEADER_SIZE, 0)
    if len(header) < framing.HEADER_SIZE or header[:4] != framing.FOURCC:
        raise SinkError(f"{path} is not a recording of Rerun, or was cut before its first message: it is as it was")
    try:
        found = survey(reader_of(fd), size)
    except FormatError:
        return None
    if not found.chunk_count and not found.is_damaged and (found.infos or size == framing.HEADER_SIZE):
        names = {store_id.ids_of_store(store)[0] for store in found.infos if store_id.is_recording(store)}
        of = "".join(f" of the application {name!r}" for name in sorted(names))
        raise SinkError(f"there are no rows in {path}: it is the begin of a recording{of}, and it is as it was")
    if not found.chunk_count:
        raise SinkError(f"there is no whole message in {path}: it is as it was")
    # If the file has several streams one behind the other, only the SDK can merge them.
    return None if found.has_more else found


def _rebuilt(fd: int, out: int, target: Path, found: Survey, size: int) -> Recovered | None:
    """Write the messages in `found`, and a footer, to `out`. Return a description of the new file.

    Chunks that the SDK cannot read are left out. Returns None if the SDK can read no chunk or cannot make the footer,
    or if the search for such chunks fails. `out` then has the messages without a footer.

    `fd` and `out` are descriptors of the original and of the new file. `target` is the final path, and `size` is the
    size of the original in bytes.
    """
    chunks = _copied(fd, out, found)
    if not footer_process.add_footer(chunks, os.fstat(out).st_size):
        unreadable = footer_process.unreadable(chunks)
        if unreadable is None:
            return None
        found = found.without(unreadable)
        if unreadable and not found.chunk_count:
            return None
        chunks = _copied(fd, out, found)
        if not footer_process.add_footer(chunks, os.fstat(out).st_size):
            return None
    whole = found.end if found.has_footer else size
    return Recovered(
        path=target,
        chunk_count=found.chunk_count,
        dropped_bytes=whole - framing.HEADER_SIZE - found.kept_bytes,
        original=_name_for_original(target) if found.is_damaged else None,
    )


def _copied(fd: int, out: int, found: Survey) -> Chunks:
    """Copy the header and the messages in `found` from the descriptor `fd` to the descriptor `out`.

    The earlier contents of `out` are lost. Returns the chunks with their places in `out`. Raises the errors of `_copy`.
    """
    os.ftruncate(out, 0)
    os.lseek(out, 0, os.SEEK_SET)
    _copy(fd, out, 0, framing.HEADER_SIZE)
    end, offsets = framing.HEADER_SIZE, OffsetMap()
    for start, stop in found.spans():
        offsets.add(start, end)
        _copy(fd, out, start, stop)
        end += stop - start
    places = array("Q")
    for start, size in found.places():
        places.extend((offsets.target(start), size))
    return Chunks(fd=out, header=found.header, infos=found.infos, places=places)


def _copy(fd: int, out: int, start: int, end: int) -> None:
    """Append the bytes `[start, end)` of the file of descriptor `fd` to the file of descriptor `out`.

    Raises `OSError` if another process has made the file shorter, or if the disk reports an error.
    """
    while start < end:
        view = memoryview(os.pread(fd, min(_COPY_BYTES, end - start), start))
        if not view:
            raise OSError(errno.EIO, "another process has made it shorter meanwhile")
        start += len(view)
        while view:
            view = view[os.write(out, view) :]


def _name_for_original(target: Path) -> Path:
    names = itertools.chain([".damaged"], (f".damaged-{number}" for number in itertools.count(1)))
    paths = (target.with_name(f"{target.name}{name}") for name in names)
    return next(path for path in paths if not os.path.lexists(path))
