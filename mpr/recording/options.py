"""Checks the arguments of `mpr.SharedRecording`, and keeps them as one value.

Covers: the ids, the route, and the choice of sinks if the user has named none.
Does not cover: how sinks are opened (`open_sinks.py`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mpr.errors import ConfigError
from mpr.recording import gather
from mpr.sdk import encoder
from mpr.sinks import active_recording
from mpr.sinks.base import Sink, SinkLike
from mpr.sinks.parse import as_sinks, sinks_of_environment

Route = Literal["funnel", "direct"]
#: The values of the argument `sinks`.
SinksLike: TypeAlias = SinkLike | Sequence[SinkLike]

_APPLICATION_ID = re.compile(r"[A-Za-z0-9_\-\[\] :]{1,180}")


def check_application_id(application_id: object) -> str:
    """Return `application_id`. Raises `ConfigError` unless it is a str that Rerun keeps unchanged.

    Rerun keeps 1 to 180 ASCII letters, digits, spaces and `_-[]:`.
    """
    if not isinstance(application_id, str):
        raise ConfigError(
            f"the application id must be a str such as 'my_app', got {application_id!r}: "
            "mpr.Pool('my_app', processes=2)"
        )
    if not _APPLICATION_ID.fullmatch(application_id):
        raise ConfigError(
            f"{application_id!r} is no application id that Rerun keeps as it is: "
            "1 to 180 ASCII letters, digits, spaces and _ - [ ] : are"
        )
    return application_id


def check_recording_id(recording_id: object) -> str:
    """Return `recording_id` as a str. If it is None, return a new random id of 32 hexadecimal digits.

    Raises `ConfigError` if the id has no characters, or more than 1000.
    """
    if recording_id is None:
        return secrets.token_hex(16)
    text = str(recording_id)
    if not text or len(text) > 1000:
        raise ConfigError(f"a recording id has 1 to 1000 characters, got {text[:40]!r} with {len(text)}")
    return text


def check_route(route: object) -> Route:
    """Return `route`. Raises `ConfigError` if `route` is neither 'funnel' nor 'direct'."""
    if route == "funnel" or route == "direct":
        return route
    raise ConfigError(f"route must be 'funnel' (through this process) or 'direct' (workers open sinks), got {route!r}")


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """The checked arguments of a recording, which `check` returns.

    Attributes
    ----------
    application_id, recording_id:
        The ids of the recording.
    sinks:
        The sinks, in the order in which the user has named them.
    announces_sink:
        True if a message on stderr says where the rows go: mpr has chosen the sink, and the sink is not the recording
        of a running test.
    blueprint:
        The user's blueprint, or None.
    route:
        The way of rows to the sinks: 'funnel' (through the parent) or 'direct' (from each worker itself).
    telemetry_view:
        True if the viewer shows the views of telemetry, False if they are folded.
    """

    application_id: str
    recording_id: str
    sinks: tuple[Sink, ...]
    announces_sink: bool
    blueprint: Any
    route: Route
    telemetry_view: bool

    @classmethod
    def check(
        cls,
        application_id: object,
        *,
        recording_id: str | None,
        sinks: SinksLike | None,
        blueprint: Any,
        route: object,
        telemetry_view: bool,
    ) -> RecordingOptions:
        """Check the arguments of `mpr.SharedRecording`, which have the same names, and return them as one object.

        If `sinks` is None, the sinks are chosen as `mpr.SharedRecording` describes. Raises `ConfigError` if a value
        cannot be used. Raises `SinkError` if `route='direct'` is not possible, because mpr does not know the file
        format of the SDK.
        """
        checked_route = check_route(route)
        application_id = check_application_id(application_id)
        if sinks is None:
            sinks = sinks_of_environment()
        announces_sink = sinks is None
        if sinks is None:
            active = active_recording.find(application_id, recording_id)
            if active is not None:
                sinks, recording_id = active, active.recording_id
                announces_sink = not active.is_ambient
        recording_id = check_recording_id(recording_id)
        if blueprint is not None:
            encoder.as_blueprint(blueprint)
        chosen = as_sinks(sinks, application_id, recording_id)
        if checked_route == "direct":
            gather.check(chosen)
        return cls(
            application_id=application_id,
            recording_id=recording_id,
            sinks=chosen,
            announces_sink=announces_sink,
            blueprint=blueprint,
            route=checked_route,
            telemetry_view=telemetry_view,
        )
