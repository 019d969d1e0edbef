"""Shows the viewer in a notebook: `SharedRecording.notebook_show`.

When a page shows the widget, the page sends the message "ready" to the kernel. A thread then sends the whole recording
to the widget. If the page is loaded again, the whole recording is sent again. A viewer ignores chunks that it has
already.

Covers: the widget of `rerun-notebook`, and the thread.
Does not cover: reading the recording (`replay.py`).
"""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

from mpr.errors import MissingDependencyError
from mpr.recording.replay import Replay

# The default size (pixels), as in `rerun.notebook`.
_WIDTH, _HEIGHT = 640, 480
# The interval between two polls for messages of the page. It is so short that nobody notices the delay.
_POLL_SECS = 0.05


class NotebookView:
    """One viewer in a notebook, and the threads that send the recording to the viewer.

    Parameters
    ----------
    replay:
        The function that yields the recording from the beginning (see `Replay` in `recording/replay.py`).
    width, height:
        The size in pixels, or 'auto'. None means 640 for the width, and 480 for the height.

    Raises
    ------
    MissingDependencyError
        If `rerun-notebook` is not installed.
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
        # The page shows this widget if the viewer cannot be loaded.
        self._error_widget: Any = rerun_notebook.ErrorWidget()
        self._widget.on_msg(self._take_message)

    def show(self, wait_secs: float) -> None:
        """Display the viewer in the output of the running cell.

        Wait up to `wait_secs` seconds until the page shows the viewer. With ipykernel 7 or newer, and outside of a
        notebook, return at once, because no messages of the page arrive while a cell runs.
        """
        from IPython import get_ipython
        from IPython.display import display

        display(self._error_widget, self._widget)
        # From version 7 on, ipykernel does not have this function. Messages of the page then go to another thread of
        # the kernel, or wait until the cell has ended.
        if hasattr(getattr(get_ipython(), "kernel", None), "do_one_iteration"):
            self._wait(wait_secs)

    def _wait(self, wait_secs: float) -> None:
        from jupyter_ui_poll import ui_events

        deadline = time.monotonic() + wait_secs
        with ui_events() as poll:
            while not self._pages and time.monotonic() < deadline:
                poll()
                time.sleep(_POLL_SECS)

    def _take_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if content == "ready":
            self._pages += 1
            threading.Thread(target=self._send, args=(self._pages,), name="mpr-notebook", daemon=True).start()

    def _send(self, page: int) -> None:
        """Send the recording to the widget. `page` is the number of the page that has asked for it, from 1.

        Stop if a later page has asked, because the thread for that page sends all rows again, and both pages get them.
        """
        for part in self._replay():
            if page != self._pages:
                return
            self._widget.send_rrd(part)
