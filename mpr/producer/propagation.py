"""Passes the connection info to children, in the environment and in the process configuration of `multiprocessing`.

Children of a fork server get the environment that the server had at its start, and not the current one of their parent.
But `multiprocessing` copies its process configuration to every child, with every start method. All other children
inherit the environment of their parent, unless the parent gives them another one.

Covers: giving the text of the connection info to children, restoring an earlier text, and reading the text in a child
(`extract`).
Does not cover: the parts of the text (`transport/connection_info.py`), joining (`membership.py`).
"""

from __future__ import annotations

import os
from multiprocessing import process
from typing import Any

from mpr.transport.connection_info import VARIABLE

_KEY = "mpr_recording"


def extract() -> str | None:
    """Return the connection info that this process has inherited or has set for its children; None if there is none.

    If the process configuration has a text, this text is returned. If it has an entry without a text, and
    `_Own.knows_environment` is False, None is returned. Otherwise, the environment variable counts.
    """
    given = _process_config()
    if _KEY in given and (given[_KEY] or not _own.knows_environment):
        text: str | None = given[_KEY]
        return text
    return os.environ.get(VARIABLE) or None


def _process_config() -> dict[str, Any]:
    # A private attribute, of which every child of `multiprocessing` gets a copy. There is no public way to pass
    # something to all these children.
    found: dict[str, Any] = getattr(process.current_process(), "_config", {})
    return found


class _Own:
    """Holds a flag, `knows_environment`: True if this process itself has made the entry in the process configuration.

    The first `Propagation` of a process makes the entry and sets the flag to True. If the process has inherited the
    entry from its parent, the flag stays False. In a forked child, the flag is False again.

    If the entry has no text, the environment variable `MPR_RECORDING` counts only if the flag is True. Without this
    rule, a child of a fork server could use an old value of the variable: it has the environment that the server had at
    its start.
    """

    knows_environment = False


_own = _Own()


def _forked() -> None:
    _own.knows_environment = False


os.register_at_fork(after_in_child=_forked)


# The propagations that are open, in the order in which they were made.
_active: list[Propagation] = []


class Propagation:
    """Gives the connection info `text` to the children that this process starts, until `close` is called.

    If a later `Propagation` is made meanwhile, children get the text of the later one until that one is closed.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        _own.knows_environment = _own.knows_environment or _KEY not in _process_config()
        _active.append(self)
        self._before = os.environ.get(VARIABLE)
        self._before_in_config: str | None = _process_config().get(_KEY)
        os.environ[VARIABLE] = text
        _process_config()[_KEY] = text

    def close(self) -> None:
        """Give children the text again that they got before this object was made.

        If other code has set another text meanwhile, the text of that code remains.
        """
        if self in _active:
            _active.remove(self)
        for later in _active:
            # A later propagation must not restore this text. Recordings may end in any order.
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
            # The key is not removed, even if its value is None. A fork server that was started meanwhile keeps the old
            # environment variable for ever, and its children must not use that variable.
            from_environment = os.environ.get(VARIABLE) if _own.knows_environment else None
            _process_config()[_KEY] = self._before_in_config or from_environment
