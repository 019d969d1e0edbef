"""Run a Jupyter kernel, and the part of a notebook page that talks to widgets."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

from tests import support


class Page:
    """Run cells, and be the front end of the viewers that they show: report "ready", and keep the streams."""

    def __init__(self, client: Any) -> None:
        self._client = client
        #: The ids of the viewers that were shown.
        self.viewers: list[str] = []
        #: The streams that each viewer got.
        self.sent: dict[str, list[bytes]] = {}
        #: Whether a viewer is ready as soon as it is shown.
        self.eager = True
        #: The output of the cells.
        self.printed = ""

    def begin(self, cell: str) -> str:
        """Begin to run a cell, and return the id of the request."""
        request: str = self._client.execute(textwrap.dedent(cell))
        return request

    def run(self, cell: str) -> None:
        """Run a cell to its end. Fail if it raises."""
        request = self.begin(cell)
        self.listen(lambda message: message is not None and _is_end_of(message, request))

    def open(self, viewer: str) -> None:
        """Open a page that shows `viewer`, or load it again."""
        content = {"comm_id": viewer, "data": {"method": "custom", "content": "ready"}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", content))

    def listen(self, until: Callable[[Any], bool], timeout_secs: float = 60) -> None:
        """Read messages of the kernel until `until(message)` is true. Without a message it gets None."""
        deadline = time.monotonic() + timeout_secs
        while True:
            assert time.monotonic() < deadline, "what the test waits for does not happen"
            try:
                message = self._client.get_iopub_msg(timeout=0.1)
            except queue.Empty:
                message = None
            else:
                self._take(message)
            if until(message):
                return

    def cells(self, viewer: int = -1) -> Counter[support.Cell]:
        """Return the cells of a viewer that takes each chunk once. Each part is a stream that can be read alone."""
        found: Counter[support.Cell] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "part.rrd")
            for part in set(self.sent[self.viewers[viewer]]):
                path.write_bytes(part)
                found |= support.cells_of_growing(path)
        return found

    def _take(self, message: Any) -> None:
        content = message["content"]
        match message["msg_type"]:
            case "error":
                raise AssertionError("\n".join(content["traceback"]))
            case "stream":
                self.printed += content["text"]
            case "comm_open" if "_panel_states" in content["data"].get("state", {}):
                self.viewers.append(content["comm_id"])
                self.sent[content["comm_id"]] = []
            case "display_data" if content["data"].get("application/vnd.jupyter.widget-view+json"):
                shown = content["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
                if self.eager and shown in self.viewers:
                    self.open(shown)
            case "comm_msg" if content["data"].get("content") == {"type": "rrd"}:
                self.sent[content["comm_id"]].append(bytes(message["buffers"][0]))


def _is_end_of(message: Any, request: str) -> bool:
    return (
        message["msg_type"] == "status"
        and message["content"]["execution_state"] == "idle"
        and message["parent_header"].get("msg_id") == request
    )


@contextlib.contextmanager
def notebook(folder: Path) -> Iterator[Page]:
    """Run a kernel with `folder` as working directory."""
    manager = KernelManager(kernel_name="python3")
    root = str(Path(__file__).parent.parent)
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": root})
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        yield Page(client)
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
