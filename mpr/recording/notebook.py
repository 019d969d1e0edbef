"""The viewer in a notebook: `SharedRecording.notebook_show`.

Covers: the widget of `rerun-notebook`, and a thread that brings it the recording.
Does not cover: what there is to bring (`replay.py`).

A page that opens a widget says "ready", which the kernel hears between two cells, or when a cell lets it. To each
one that does so, also when a page is loaded again, the whole recording is brought: a viewer knows each chunk by its id,
and takes it once.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

from mpr.errors import MissingDependencyError
from mpr.recording.replay import Replay

# As in `rerun.notebook`.
_WIDTH, _HEIGHT = 640, 480
# As long as a viewer needs to notice a click.
_POLL_SECS = 0.05


class NotebookView:
    """One viewer in a notebook.

    Raises `MissingDependencyError` where `rerun-notebook` is not installed.
    """

    def __init__(
        self, replay: Replay, width: int | Literal["auto"] | None, height: int | Literal["auto"] | None
    ) -> None:
        try:
            import rerun_notebook
        except ImportError as error:
            raise MissingDependencyError("rerun-notebook", "notebook") from error
        self._replay = replay
        self._pages = 0
        self._widget: Any = rerun_notebook.Viewer(width=width or _WIDTH, height=height or _HEIGHT)
        # Tells in the page what to do where it cannot load the viewer.
        self._apology: Any = rerun_notebook.ErrorWidget()
        self._widget.on_msg(self._hear)

    def show(self, wait_secs: float) -> None:
        """Display it, and wait up to `wait_secs` for the page, where the cell that runs can hear it."""
        from IPython import get_ipython
        from IPython.display import display

        display(self._apology, self._widget)
        # With ipykernel 7, pages that know how speak to another thread; for the others the cell would have to end.
        if hasattr(getattr(get_ipython(), "kernel", None), "do_one_iteration"):
            self._wait(wait_secs)

    def _wait(self, wait_secs: float) -> None:
        from jupyter_ui_poll import ui_events

        deadline = time.monotonic() + wait_secs
        with ui_events() as poll:
            while not self._pages and time.monotonic() < deadline:
                poll()
                time.sleep(_POLL_SECS)

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if content == "ready":
            self._pages += 1
            threading.Thread(target=self._send, args=(self._pages,), name="mpr-notebook", daemon=True).start()

    def _send(self, page: int) -> None:
        for part in self._replay():
            if page != self._pages:
                # Another page has come, and the newer thread brings both of them all there is.
                return
            self._widget.send_rrd(part)
