"""Serves the page of a run after the run, with a web viewer that opens the recordings by one click.

The server and the viewer listen at addresses of this machine only, until the user presses Ctrl-C.

Covers: the files of the run's folder, and the process of the web viewer.
Does not cover: the text of the page (`html_page.py`).
"""

from __future__ import annotations

import functools
import http.server
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.report import html_page
from mpr.pytest_plugin.report.html_page import Viewer
from mpr.pytest_plugin.results import RecordedTest
from mpr.sdk import programs

_HOST = "127.0.0.1"


def serve(settings: Settings, results: Sequence[RecordedTest], say: Callable[[str], Any]) -> None:
    """Serve the page of the run until the user presses Ctrl-C. Pass a line with the page's address to `say`.

    `settings` are the options of the run (`serve_port` must not be None), and `results` the results of its tests.
    Raises `OSError` if the port is in use, or if the web viewer cannot be started.
    """
    assert settings.serve_port is not None
    with http.server.ThreadingHTTPServer((_HOST, settings.serve_port), http.server.BaseHTTPRequestHandler) as server:
        address = f"http://{_HOST}:{server.server_port}"
        with _web_viewer(f"{address}/") as viewer:
            page = html_page.page(settings.folder, results, Viewer(viewer.url, address))
            server.RequestHandlerClass = functools.partial(
                _Handler,
                directory=str(settings.folder),
                page=page.encode(errors="xmlcharrefreplace"),
                viewer=viewer.url,
            )
            say(f"mpr: the page of this run: {address}/  (Ctrl-C ends it)")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                say("mpr: the page is no longer served")


class _WebViewer:
    """Runs a web viewer from the creation of this object to the end of its `with` block. `url` is the viewer's address.

    `recordings` is the URL of the folder of the recordings, with a `/` at its end. Raises `OSError` if the program of
    the viewer cannot be started.
    """

    def __init__(self, recordings: str) -> None:
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            port = probe.getsockname()[1]
        self.url = f"http://{_HOST}:{port}/"
        command = [programs.viewer_executable() or "rerun", "--serve-web", "--bind", _HOST]
        # With the URL of a recording, the program starts no server for rows.
        command += ["--web-viewer-port", str(port), f"{recordings}run.rrd"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> _WebViewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


_web_viewer = _WebViewer


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Answers with the files of a folder, and with a page for the folder itself and for its `index.html`.

    Parameters
    ----------
    page:
        The page as encoded HTML.
    viewer:
        The URL of the web viewer. Besides pages of this server, a browser lets only pages of this web viewer read the
        files.
    """

    def __init__(self, *args: Any, page: bytes, viewer: str, **kwargs: Any) -> None:
        self._page = page
        self._viewer = viewer
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if unquote(urlsplit(self.path).path) in ("/", f"/{html_page.NAME}"):
            self.send_response(http.HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(self._page)))
            self.end_headers()
            self.wfile.write(self._page)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        # Only pages of this viewer may read the recordings.
        self.send_header("Access-Control-Allow-Origin", self._viewer.rstrip("/"))
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing, because the terminal belongs to pytest."""
