"""Says how a process joins a shared recording, also as text for the environment."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpr.errors import JoinError
from mpr.limits import OUTBOX_MAX_BYTES
from mpr.transport.messages import PROTOCOL


@dataclass(frozen=True, kw_only=True)
class DirectRoute:
    """Names the sinks that a process opens itself.

    Attributes
    ----------
    folder:
        The folder for a file of its own; empty for no file.
    urls:
        The URLs of viewers and servers.
    """

    folder: str
    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """Says how a process joins a shared recording.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the one recording.
    folder:
        The private folder of the sockets (mode 0700).
    upstream, downstream:
        ZeroMQ endpoints of the parent: for messages of producers, and for messages to them.
    secret:
        The secret that a producer must show; never logged.
    outbox_bytes:
        Bytes that the producer's outbox may hold before `rr.log` waits.
    marks_tasks:
        Whether a worker marks where the rows of each task begin and end, for sinks that keep them apart.
    direct:
        The sinks that the process opens itself; None if its rows go through the parent.
    """

    application_id: str
    recording_id: str
    folder: Path
    upstream: str
    downstream: str
    secret: str = field(repr=False)
    outbox_bytes: int = OUTBOX_MAX_BYTES
    marks_tasks: bool = False
    direct: DirectRoute | None = None


#: The environment variable by which a child process joins. It has the recording's secret, so it is never logged.
VARIABLE = "MPR_RECORDING"
# The fields that are no texts.
_TYPES: dict[str, Any] = {
    "folder": Path,
    "outbox_bytes": int,
    "marks_tasks": bool,
    "direct": DirectRoute | None,
}


def to_text(config: ConnectionInfo) -> str:
    """Return `config` as the value of the variable."""
    return json.dumps({"protocol": PROTOCOL, **dataclasses.asdict(config)}, default=os.fspath)


def from_text(text: str) -> ConnectionInfo:
    """Return the config in `text`. Raises `JoinError` that says what is wrong with it, and does not show it."""
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
