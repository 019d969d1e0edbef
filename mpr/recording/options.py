"""What the user chose, checked, and the numbers that the rest of mpr works with, each with its reason.

`ConnectionInfo` says how a process joins a shared recording.
"""

from __future__ import annotations

import re
import secrets
from typing import Literal

from mpr.errors import ConfigError

Route = Literal["funnel", "direct"]

_APPLICATION_ID = re.compile(r"[A-Za-z0-9_\-\[\] :]{1,180}")


def check_application_id(application_id: object) -> str:
    """`application_id`, or `ConfigError`: the SDK would silently rename one that it does not like."""
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
    """`recording_id` as a str; a fresh random one for None."""
    if recording_id is None:
        return secrets.token_hex(16)
    text = str(recording_id)
    if not text or len(text) > 1000:
        raise ConfigError(f"a recording id has 1 to 1000 characters, got {text[:40]!r} with {len(text)}")
    return text


def check_route(route: object) -> Route:
    """`route`, or `ConfigError`."""
    if route == "funnel" or route == "direct":
        return route
    raise ConfigError(f"route must be 'funnel' (through this process) or 'direct' (workers open sinks), got {route!r}")
