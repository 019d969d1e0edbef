"""How a process finds the recording that its parent gave it: in multiprocessing's process configuration, else in the
environment.

Children of a fork server do not see what the environment of their parent is now, but multiprocessing hands its process
configuration to every child, whatever the start method. All other children inherit the environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
from multiprocessing import process
from pathlib import Path
from typing import Any

from mpr.config import DirectRoute, RecordingConfig
from mpr.errors import JoinError
from mpr.messages import PROTOCOL

#: The variable by which a child process joins. It has the recording's token, so it is never logged.
VARIABLE = "MPR_RECORDING"
_KEY = "mpr_recording"
# All other fields are texts.
_TYPES: dict[str, Any] = {
    "folder": Path,
    "outbox_bytes": int,
    "marks_tasks": bool,
    "direct": DirectRoute | None,
}


def to_text(config: RecordingConfig) -> str:
    """`config` as the value of the variable."""
    return json.dumps({"protocol": PROTOCOL, **dataclasses.asdict(config)}, default=os.fspath)


def from_text(text: str) -> RecordingConfig:
    """The config in `text`; raises `JoinError` that says what is wrong with it, and does not show it."""
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
        config = RecordingConfig(**{**fields, "folder": Path(fields["folder"])}, direct=direct)
    except (TypeError, KeyError):
        raise JoinError(f"the environment variable {VARIABLE} has not what a recording needs") from None
    for field in dataclasses.fields(config):
        wanted = _TYPES.get(field.name, str)
        if not isinstance(getattr(config, field.name), wanted):
            raise JoinError(f"the environment variable {VARIABLE} has a {field.name} of the wrong type")
    return config


def inherited() -> str | None:
    """What this process was given to join, as text; None for nothing."""
    given = _process_config()
    if _KEY in given:
        text: str | None = given[_KEY]
        return text
    return os.environ.get(VARIABLE) or None


def _process_config() -> dict[str, Any]:
    # Every child of multiprocessing gets a copy; there is no public way to pass something along to all of them.
    found: dict[str, Any] = getattr(process.current_process(), "_config", {})
    return found


# Those that are not withdrawn, in the order in which they were made.
_bequests: list[Bequest] = []


class Bequest:
    """What the children of this process are given from now on, until it is `withdrawn`."""

    def __init__(self, text: str) -> None:
        self._text = text
        _bequests.append(self)
        self._before = os.environ.get(VARIABLE)
        self._before_in_config: str | None = _process_config().get(_KEY)
        os.environ[VARIABLE] = text
        _process_config()[_KEY] = text

    def withdraw(self) -> None:
        """Give children again what they were given before, unless somebody has changed it meanwhile."""
        if self in _bequests:
            _bequests.remove(self)
        for later in _bequests:
            # Recordings need not end in the order in which they began.
            if later._before == self._text:
                later._before = self._before
            if later._before_in_config == self._text:
                later._before_in_config = self._before_in_config
        if os.environ.get(VARIABLE) == self._text:
            if self._before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = self._before
        if _process_config().get(_KEY) == self._text:
            # Not removed: a fork server that was started meanwhile has the variable for ever.
            _process_config()[_KEY] = self._before_in_config or os.environ.get(VARIABLE)
