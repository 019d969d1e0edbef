"""Defines the values that a process needs to join a shared recording, and their form in an environment variable.

Covers: the values, and turning them into a text and back.
Does not cover: joining (`producer/membership.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpr import limits
from mpr.errors import JoinError
from mpr.limits import OUTBOX_MAX_BYTES
from mpr.transport.messages import PROTOCOL


@dataclass(frozen=True, kw_only=True)
class DirectRoute:
    """The sinks that a process opens itself with `route="direct"`, so that its rows do not go through the parent.

    Attributes
    ----------
    folder:
        The folder in which the process makes its own file; empty if it makes no file.
    urls:
        The URLs of viewers and servers.
    """

    folder: str
    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """The values that a process needs to join a shared recording.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the shared recording.
    folder:
        The private folder of the sockets (mode 0700).
    upstream, downstream:
        ZeroMQ endpoints of the parent: for messages from the process, and for messages to the process.
    secret:
        The secret that the process must send in its first message. `repr` does not show it.
    place:
        A text that identifies the folder in which `folder` lies (`ipc_folder.place_of`).
    machine:
        The host name of the parent's machine or container.
    outbox_bytes:
        The number of bytes that may wait in the outbox of the process. If more bytes wait, `rr.log` waits.
    marks_tasks:
        True if at least one sink keeps the rows of each task apart. Workers then send a message at the begin and at the
        end of each task.
    keeps_apart:
        True if all sinks keep the rows of each task apart.
    is_watched:
        True if a sink is a viewer, a server or a stream. The process then sends its rows more often.
    direct:
        The sinks that the process opens itself; None if its rows go through the parent.
    """

    application_id: str
    recording_id: str
    folder: Path
    upstream: str
    downstream: str
    secret: str = field(repr=False)
    place: str = ""
    machine: str = ""
    outbox_bytes: int = OUTBOX_MAX_BYTES
    marks_tasks: bool = False
    keeps_apart: bool = False
    is_watched: bool = False
    direct: DirectRoute | None = None

    @property
    def flush_tick_secs(self) -> float | None:
        """The longest time in seconds that the SDK may keep rows before it writes them; None: the SDK's default."""
        return limits.WATCHED_FLUSH_TICK_SECS if self.is_watched else None

    @property
    def announce_every_secs(self) -> float:
        """The time in seconds after which the process announces new rows to the parent, if not before."""
        return limits.WATCHED_ANNOUNCE_EVERY_SECS if self.is_watched else limits.ANNOUNCE_EVERY_SECS


#: The environment variable by which a child process joins. Its value contains the secret, so mpr never logs the value.
VARIABLE = "MPR_RECORDING"
# The types of the fields that are not `str`.
_TYPES: dict[str, Any] = {
    "folder": Path,
    "outbox_bytes": int,
    "marks_tasks": bool,
    "keeps_apart": bool,
    "is_watched": bool,
    "direct": DirectRoute | None,
}


# Kept, because each call of a wrapped function needs the text, and making it takes 50 us.
@functools.lru_cache(maxsize=16)
def to_text(config: ConnectionInfo) -> str:
    """Return `config` as the text for the environment variable `MPR_RECORDING`. The text contains the secret."""
    return json.dumps({"protocol": PROTOCOL, **dataclasses.asdict(config)}, default=os.fspath)


# Kept, because each chunk of an engine brings the text, and reading it takes 25 us.
@functools.lru_cache(maxsize=16)
def from_text(text: str) -> ConnectionInfo:
    """Return the values in `text`, which `to_text` has made.

    Raises `JoinError` if `text` is not valid, or if it has another version of the messages than this process. The error
    does not contain `text`, because `text` contains the secret.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        protocol = fields.pop("protocol")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise JoinError(
            f"the environment variable {VARIABLE} is not one that mpr has made: {len(text)} characters. It comes "
            "from SharedRecording.environ(), or by itself within the recording's 'with' block"
        ) from None
    if protocol != PROTOCOL:
        raise JoinError(
            f"the recording to join speaks protocol {protocol}, and this process {PROTOCOL}: both need the same "
            "version of mpr"
        )
    try:
        direct = fields.pop("direct", None)
        if direct is not None:
            direct = DirectRoute(folder=str(direct["folder"]), urls=tuple(map(str, direct["urls"])))
        config = ConnectionInfo(**{**fields, "folder": Path(fields["folder"])}, direct=direct)
    except (TypeError, KeyError):
        raise JoinError(f"the environment variable {VARIABLE} has not what a recording needs") from None
    for each in dataclasses.fields(config):
        wanted = _TYPES.get(each.name, str)
        if not isinstance(getattr(config, each.name), wanted):
            raise JoinError(f"the environment variable {VARIABLE} has a {each.name} of the wrong type")
    return config
