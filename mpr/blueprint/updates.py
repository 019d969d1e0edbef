"""Makes a new viewer layout when the recording has new entities or pools, because the first layout cannot know them.

The archetypes of an entity are the kinds of data that it has, such as `Points2D`. A state timeline is a row of coloured
states in the viewer. It shows over time what a worker does.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from mpr.blueprint import default
from mpr.blueprint.contents import Contents
from mpr.sdk import encoder
from mpr.user_code import log as _log


class BlueprintUpdates:
    """Makes a new layout of one recording when its contents or pools have changed. Any thread may call the methods.

    Parameters
    ----------
    application_id:
        The application id of the recording.
    contents:
        The entities and timelines of the recording.
    user_blueprint:
        The user's blueprint, or None.
    pools_visible:
        True if the viewer shows the views of the pools, false if it hides them until the user shows them.
    """

    def __init__(self, application_id: str, contents: Contents, user_blueprint: Any, *, pools_visible: bool) -> None:
        self._application_id = application_id
        self._contents = contents
        self._user_blueprint = user_blueprint
        self._pools_visible = pools_visible
        self._kinds: frozenset[str] = frozenset()
        self._state_timelines = 0
        self._lock = threading.Lock()
        self._made_of: object = None
        self._stream = b""
        self._failed = False

    def add_pool(self, size: int, kinds: frozenset[str]) -> None:
        """Add a pool with `size` workers. `kinds` are the kinds of telemetry that the pool records."""
        with self._lock:
            self._state_timelines += size
            self._kinds |= kinds

    @property
    def records_telemetry(self) -> bool:
        """True if a pool that was added records telemetry."""
        return bool(self._kinds)

    def refresh(self) -> tuple[bytes, bool]:
        """Return the encoded layout for the present contents, and True if it was made anew.

        The layout is made anew if the pools, the entities, or the timeline that the viewer shows first have changed
        since the last call. Otherwise the layout of the last call is returned, and False. The layout is a whole stream
        in the format of `.rrd` files. The stream is empty (with False) if mpr makes no layout. There are four possible
        reasons:

        - No pool records telemetry.
        - A process has sent a blueprint along with its rows.
        - The user has given a blueprint, and wants no views of pools.
        - An earlier or the present attempt to make a layout has failed. mpr logs one warning, and does not try again.
        """
        with self._lock:
            if (
                not self._kinds
                or (self._user_blueprint is not None and not self._pools_visible)
                or self._contents.has_layout
            ):
                return b"", False
            if self._failed:
                return b"", False
            try:
                return self._made()
            except Exception as error:  # noqa: BLE001  # the SDK and a user's blueprint may raise anything
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
        if self._user_blueprint is None:
            self._stream = _encoded(self._application_id, frozenset(seen.items()), *looks)
        else:
            self._stream = _encode(self._application_id, seen, *looks, self._user_blueprint)
        return self._stream, True

    def _timeline(self) -> str | None:
        """Return the timeline that the viewer shows first: of the user's own timelines, the one with most data.

        Returns `log_time` if the user's rows have only `log_time` and `log_tick`. Also returns `log_time` if the views
        of the pools are visible, and no timeline of the user has more data than `log_time`. The reason is that the
        state timelines of the pools have data only on `log_time`.
        """
        counts = self._contents.weights()
        users = {name: count for name, count in counts.items() if name not in ("log_time", "log_tick")}
        most = max(users, key=lambda name: (users[name], name), default=None)
        on_log_time = counts.get("log_time", 0) >= max(users.values(), default=0)
        return "log_time" if most is None or (self._pools_visible and on_log_time) else most


def _encode(
    application_id: str,
    seen: dict[str, frozenset[str]],
    timeline: str | None,
    state_timelines: int,
    kinds: frozenset[str],
    visible: bool,
    user_blueprint: Any = None,
) -> bytes:
    blueprint = default.blueprint(seen, timeline, state_timelines, kinds, user_blueprint, pools_visible=visible)
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
    """Return the result of `_encode` without a user's blueprint, and keep the last 64 results.

    `seen` has the entities and their archetypes as pairs, because the arguments must be hashable. The results are kept,
    because a call of `_encode` takes milliseconds.
    """
    return _encode(application_id, dict(seen), timeline, state_timelines, kinds, visible)
