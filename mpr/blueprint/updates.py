"""The layout of one recording while it grows: what it has to show is not known before something was logged."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

from mpr.blueprint import default
from mpr.blueprint.contents import Contents
from mpr.sdk import encoder

_log = logging.getLogger("mpr")


class BlueprintUpdates:
    """Makes the layout anew where there is something new to see.

    Parameters
    ----------
    application_id:
        Of the recording.
    contents:
        What is in it.
    own:
        The user's blueprint, if any.
    pools_visible:
        Whether the views of the pools are wanted.
    """

    def __init__(self, application_id: str, contents: Contents, own: Any, *, pools_visible: bool) -> None:
        self._application_id = application_id
        self._contents = contents
        self._own = own
        self._pools_visible = pools_visible
        self._kinds: frozenset[str] = frozenset()
        self._state_timelines = 0
        self._lock = threading.Lock()
        self._made_of: object = None
        self._stream = b""
        self._failed = False

    def add_pool(self, size: int, kinds: frozenset[str]) -> None:
        """A pool of so many workers records that of itself."""
        with self._lock:
            self._state_timelines += size
            self._kinds |= kinds

    def refresh(self) -> tuple[bytes, bool]:
        """The layout for what is there now, as a whole stream, and whether it is another one than the last time.

        Empty where it is not ours to choose: no pool records itself, or the user has his own and wants nothing beside.
        """
        with self._lock:
            if not self._kinds or (self._own is not None and not self._pools_visible) or self._contents.has_layout:
                return b"", False
            if self._failed:
                return b"", False
            try:
                return self._made()
            except Exception as error:  # noqa: BLE001  # whatever the SDK or a user's blueprint raises
                self._failed = True
                _log.warning("mpr: no layout can be made for the recording: %s: %s", type(error).__name__, error)
                return b"", False

    def _made(self) -> tuple[bytes, bool]:
        self._contents.learn()
        seen = self._contents.snapshot()
        made_of = (seen, self._timeline(), self._state_timelines, self._kinds)
        if made_of == self._made_of:
            return self._stream, False
        self._made_of = made_of
        looks = (self._timeline(), default.bucket(self._state_timelines), self._kinds, self._pools_visible)
        if self._own is None:
            self._stream = _encoded(self._application_id, frozenset(seen.items()), *looks)
        else:
            self._stream = _encode(self._application_id, seen, *looks, self._own)
        return self._stream, True

    def _timeline(self) -> str | None:
        """The timeline to begin with: one on which there is everything that is to be seen."""
        counts = self._contents.timelines
        users = {name: count for name, count in counts.items() if name not in ("log_time", "log_tick")}
        most = max(users, key=lambda name: (users[name], name), default=None)
        on_log_time = counts["log_time"] >= max(users.values(), default=0)
        return "log_time" if most is None or (self._pools_visible and on_log_time) else most


def _encode(
    application_id: str,
    seen: dict[str, frozenset[str]],
    timeline: str | None,
    state_timelines: int,
    kinds: frozenset[str],
    visible: bool,
    own: Any = None,
) -> bytes:
    blueprint = default.blueprint(seen, timeline, state_timelines, kinds, own, pools_visible=visible)
    return encoder.encoded_blueprint(application_id, blueprint)


@functools.lru_cache(maxsize=64)
def _encoded(
    application_id: str,
    seen: frozenset[tuple[str, frozenset[str]]],
    timeline: str | None,
    state_timelines: int,
    kinds: frozenset[str],
    visible: bool,
) -> bytes:
    """The same once more: the SDK takes some milliseconds for it, and two threads that never end."""
    return _encode(application_id, dict(seen), timeline, state_timelines, kinds, visible)
