"""Defines the live sinks: viewers and servers. An exporter is the process that sends rows to one live sink.

No result waits for a live sink, and a live sink cannot cause lost rows in a file, except with `route="direct"`: workers
then send rows to viewers themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeGuard
from urllib.parse import quote, urlsplit

from mpr.errors import ConfigError, SinkError
from mpr.sdk import programs
from mpr.sinks.base import Sink

_SCHEMES = ("rerun", "rerun+http", "rerun+https")
_EXAMPLE = "rerun+http://127.0.0.1:9876/proxy"
# The nice value (priority) of a viewer that stays open after the program. On a busy machine, the viewer gets a tenth of
# the CPU time of another program. It does not get less, because a person watches it.
_SESSION_NICE = 10
_MEMORY = re.compile(r"\d+(\.\d+)?([kKMGT]?B|[KMGT]iB|%)")


class LiveSink(Sink):
    """The base class of viewers and servers, which get rows while the tasks run.

    A viewer may start late, be slow, or end at any time. If a viewer lacks rows when the recording is closed, mpr only
    logs a warning.

    A subclass must define `_url`. It must also define `_with_ports` if the sink listens at a port, `_start_program` if
    the sink needs a program, and `_sdk_sink` if the rows do not go to `_url` by `rr.GrpcSink`. If `_start_program` or
    `_sdk_sink` raises, the exporter ends, and mpr tries again with a new exporter.
    """

    is_live = True
    takes_direct_rows = True
    #: Whether the sink is a server, to which viewers connect. The server runs in the exporter, and ends with it.
    is_server: ClassVar[bool] = False

    def _name(self) -> str:
        """Return the name of the sink in notes, errors and statistics."""
        return f"{type(self).__name__}({self._url()})"

    @abstractmethod
    def _url(self) -> str:
        """Return the URL at which the viewer or server gets rows, such as `rerun+http://127.0.0.1:9876/proxy`."""

    def _reached_at(self) -> str:
        """Return the URL at which a person sees the rows: of a web page if the sink has one, else `_url()`."""
        return self._url()

    def _places(self) -> tuple[str, ...]:
        address = urlsplit(self._url())
        host = "127.0.0.1" if address.hostname in ("localhost", "0.0.0.0", "::", "::1") else address.hostname  # noqa: S104  # compared, not bound
        # Port 0 has no name here, because it becomes a free port that no other sink has.
        return (f"port {address.port} of {host}",) if address.port else ()

    def _with_ports(self) -> LiveSink:
        """Return a copy of this sink with a free port in place of each port that is 0.

        Raises `SinkError` if another program uses a port, or if the sink needs the Rerun viewer and it is not
        installed. A sink that listens at no port, such as a `GrpcSink`, returns itself.
        """
        return self

    # --- in the exporter's process -------------------------------------------------------------------------------

    def _start_program(self, *, first: bool) -> subprocess.Popen[bytes] | None:
        """Start the program that the sink needs, if any: a native viewer, or the server of a web page.

        The exporter calls this method while it has only one thread, because a fork is not safe while other threads run.
        `first` is True in the first exporter of the sink, and False in an exporter that replaces another one. If the
        sink cannot work without the program, returns the program, else None.
        """
        return None

    def _sdk_sink(self) -> Any:
        """Return an object of the SDK, such as `rr.GrpcSink`, by which an exporter sends rows to this live sink."""
        import rerun as rr

        return rr.GrpcSink(url=self._url())


def is_live(sink: Sink) -> TypeGuard[LiveSink]:
    """Return True if `sink` is a live sink. A type checker then knows that `sink` is a `LiveSink`."""
    return sink.is_live


@dataclass(frozen=True, kw_only=True)
class GrpcSink(LiveSink):
    """A viewer or server that mpr does not start. mpr connects to it, as `rr.connect_grpc` does.

    The viewer may start late, end, and start again. After each start, mpr sends the rows again: from the beginning if
    the recording has a `FileSink`, else the last 256 MiB. If no viewer listens, nothing is raised. mpr logs a warning
    after 10 s, and the statistics (`mpr.LiveSinkStatistics`) have the number of missing chunks.

    Parameters
    ----------
    url:
        The URL, in the form `rerun+http://<host>:<port>/proxy`. With `rerun://` or `rerun+https://`, the connection is
        encrypted (TLS).

    Raises
    ------
    ConfigError
        If `url` is no URL of this form.
    """

    url: str = field(default=_EXAMPLE, kw_only=False)

    def __post_init__(self) -> None:
        wanted = f"a viewer's URL looks like {_EXAMPLE!r}"
        if not isinstance(self.url, str):
            raise ConfigError(f"GrpcSink needs a URL, got {self.url!r}: {wanted}")
        try:
            address = urlsplit(self.url)
            port = address.port
        except ValueError as error:
            raise ConfigError(f"{self.url!r} is no URL of a viewer ({error}): {wanted}") from error
        if address.scheme not in _SCHEMES:
            raise ConfigError(f"{self.url!r} has the unknown scheme {address.scheme!r}: {wanted}")
        if not address.hostname or not port:
            raise ConfigError(f"{self.url!r} lacks a host or a port: {wanted}")
        if address.path != "/proxy":
            raise ConfigError(f"{self.url!r} does not end with '/proxy': {wanted}")

    def _url(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True)
class GrpcServerSink(LiveSink):
    """A server to which any number of viewers can connect at any time, as with `rr.serve_grpc`.

    The server ends when the recording is closed. If another program uses the port, opening the recording raises
    `SinkError`.

    Parameters
    ----------
    port:
        The port at which the server listens, or 0 for a free port (see `SharedRecording.urls`).
    bind_ip:
        The address at which the server listens. By default, only this machine reaches it. With '0.0.0.0', all machines
        reach it.
    server_memory_limit:
        The largest amount of memory for rows that the server keeps for viewers that connect later: '512MB', '1GiB', or
        '10%' of the machine's memory. Above this limit, the oldest rows are dropped.
    newest_first:
        Whether a viewer that connects late gets the newest rows first.
    cors_allow_origin:
        The web pages (such as 'https://*.example.com') that may connect, besides pages of this machine and rerun.io.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """

    port: int = 9876
    bind_ip: str = "127.0.0.1"
    server_memory_limit: str = "1GiB"
    newest_first: bool = False
    cors_allow_origin: tuple[str, ...] = ()

    is_server = True

    def __post_init__(self) -> None:
        _check_port("port", self.port)
        _check_ip(self.bind_ip)
        _check_memory("server_memory_limit", self.server_memory_limit)
        if isinstance(self.cors_allow_origin, str):
            raise ConfigError(f"cors_allow_origin must be a list of origins, got {self.cors_allow_origin!r}")
        object.__setattr__(self, "cors_allow_origin", tuple(self.cors_allow_origin))

    def _url(self) -> str:
        return _url_of(self.bind_ip, self.port)

    def _with_ports(self) -> GrpcServerSink:
        return replace(self, port=_port(self, self.bind_ip, self.port))

    def _sdk_sink(self) -> Any:
        import rerun as rr

        return rr.GrpcServerSink(
            self.bind_ip,
            self.port,
            server_memory_limit=self.server_memory_limit,
            newest_first=self.newest_first,
            cors_allow_origin=list(self.cors_allow_origin),
        )


@dataclass(frozen=True, kw_only=True)
class WebViewerSink(LiveSink):
    """A server for the data and a web page with a viewer, as with `rr.serve_grpc` and `rr.serve_web_viewer`.

    The server ends when the recording is closed. On Linux, the server of the page ends then, too. If another program
    uses one of the ports, or if the Rerun viewer is not installed, opening the recording raises `SinkError`.

    Parameters
    ----------
    web_port:
        The port of the page, or 0 for a free port (see `SharedRecording.urls`).
    grpc_port:
        The port of the server from which the page gets the data, or 0 for a free port.
    bind_ip:
        The address at which both ports listen. By default, only this machine reaches them. With '0.0.0.0', all machines
        reach them.
    open_browser:
        Whether to open the page in the default browser.
    server_memory_limit:
        The largest amount of memory for rows that the server keeps for pages that are opened later: '512MB', '1GiB', or
        '10%' of the machine's memory. Above this limit, the oldest rows are dropped.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """

    web_port: int = 9090
    grpc_port: int = 9876
    bind_ip: str = "127.0.0.1"
    open_browser: bool = True
    server_memory_limit: str = "1GiB"

    is_server = True

    def __post_init__(self) -> None:
        _check_port("web_port", self.web_port)
        _check_port("grpc_port", self.grpc_port)
        if self.web_port and self.web_port == self.grpc_port:
            raise ConfigError(f"the page and the server need two ports, got {self.web_port} for both")
        _check_ip(self.bind_ip)
        _check_memory("server_memory_limit", self.server_memory_limit)

    def _url(self) -> str:
        return _url_of(self.bind_ip, self.grpc_port)

    def _reached_at(self) -> str:
        return f"http://{_reached(self.bind_ip)}:{self.web_port}/?url={quote(self._url(), safe='')}"

    def _places(self) -> tuple[str, ...]:
        page = (f"port {self.web_port} of {_reached(self.bind_ip)}",) if self.web_port else ()
        return (*super()._places(), *page)

    def _with_ports(self) -> WebViewerSink:
        _check_viewer(self)
        grpc_port = _port(self, self.bind_ip, self.grpc_port)
        return replace(self, grpc_port=grpc_port, web_port=_port(self, self.bind_ip, self.web_port))

    def _start_program(self, *, first: bool) -> subprocess.Popen[bytes]:
        # `rr.serve_web_viewer` is not used, because it listens at all addresses of the machine.
        command = [
            programs.viewer_executable() or "rerun",
            *("--serve-web" if not self.open_browser else "--web-viewer",),
            *("--bind", self.bind_ip, "--web-viewer-port", str(self.web_port)),
            self._url(),
        ]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )

    def _sdk_sink(self) -> Any:
        import rerun as rr

        return rr.GrpcServerSink(self.bind_ip, self.grpc_port, server_memory_limit=self.server_memory_limit)


@dataclass(frozen=True, kw_only=True)
class SpawnViewerSink(LiveSink):
    """A new native viewer on this machine, as with `rr.spawn`, but by default with a free port and less memory.

    By default, a viewer with a window stays open when the program ends. If the user closes the viewer, mpr does not
    start another one. The viewer runs at a low priority, so that the workers get more CPU time. If another program uses
    the port, or if the Rerun viewer is not installed, opening the recording raises `SinkError`.

    Parameters
    ----------
    port:
        The port at which the viewer listens, or 0 for a free port.
    memory_limit:
        The largest amount of memory for rows in the viewer: '2GB', or '25%' of the machine's memory. Above this limit,
        the oldest rows are dropped.
    server_memory_limit:
        The largest amount of memory for rows in the server that receives the rows for the viewer, in the viewer's
        process.
    hide_welcome_screen:
        Whether the viewer hides its welcome screen, as in `rr.spawn`.
    headless:
        Whether the viewer has no window, for tests and screenshots.
    detach_process:
        Whether the viewer stays when the recording is closed. By default it stays, unless it is headless. On macOS,
        mpr never ends it.

    Raises
    ------
    ConfigError
        If a value cannot be used.
    """

    port: int = 0
    memory_limit: str = "25%"
    server_memory_limit: str = "1GiB"
    hide_welcome_screen: bool = False
    headless: bool = False
    detach_process: bool | None = None

    def __post_init__(self) -> None:
        _check_port("port", self.port)
        _check_memory("memory_limit", self.memory_limit)
        _check_memory("server_memory_limit", self.server_memory_limit)

    def _url(self) -> str:
        return _url_of("127.0.0.1", self.port)

    def _with_ports(self) -> SpawnViewerSink:
        _check_viewer(self)
        return replace(self, port=_port(self, "127.0.0.1", self.port))

    def _start_program(self, *, first: bool) -> None:
        if not first:
            # The viewer is not started again, because it still runs, or the user has closed it.
            return
        command = [
            programs.viewer_executable() or "rerun",
            *("--bind", "127.0.0.1", "--port", str(self.port)),
            *("--memory-limit", self.memory_limit, "--server-memory-limit", self.server_memory_limit),
            "--expect-data-soon",
            *(["--hide-welcome-screen"] if self.hide_welcome_screen else []),
            *(["--headless"] if self.headless else []),
        ]
        stays = not self.headless if self.detach_process is None else self.detach_process
        viewer = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # `rr.spawn` sets this variable too. Without it, the viewer prints a welcome text to the terminal.
            env={**os.environ, "RERUN_APP_ONLY": "true"},
            start_new_session=stays,
            preexec_fn=None if stays else _end_with_parent,
        )
        if stays:
            # The viewer runs in a session of its own. Linux first shares the CPU among sessions, and then within each
            # session by the priorities of processes. So the session needs a low priority, too.
            with contextlib.suppress(OSError):
                Path(f"/proc/{viewer.pid}/autogroup").write_text(str(_SESSION_NICE))


def _end_with_parent() -> None:
    """Let the kernel kill the calling process when its parent, the exporter, ends. Works only on Linux.

    The child of the exporter calls this function between fork and exec. This is safe, because the exporter has only one
    thread at this time.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _reached(ip: str) -> str:
    """Return the host for a URL by which this machine reaches a server that listens at `ip`.

    The host is 127.0.0.1 if the server listens at all addresses. Another IPv6 address gets brackets.
    """
    address = ipaddress.ip_address(ip)
    return "127.0.0.1" if address.is_unspecified else f"[{ip}]" if address.version == 6 else ip


def _url_of(ip: str, port: int) -> str:
    return f"rerun+http://{_reached(ip)}:{port}/proxy"


def _check_port(name: str, port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"{name} must be a port from 1 to 65535, or 0 for a free one, got {port!r}")


def _check_ip(ip: object) -> None:
    try:
        ipaddress.ip_address(ip)  # type: ignore[arg-type]  # checked by this
    except ValueError as error:
        raise ConfigError(f"bind_ip must be an address such as '127.0.0.1' or '0.0.0.0', got {ip!r}") from error


def _check_memory(name: str, limit: object) -> None:
    if not isinstance(limit, str) or not _MEMORY.fullmatch(limit):
        raise ConfigError(f"{name} must be an amount such as '512MB', '1GiB' or '25%', got {limit!r}")


def _port(sink: LiveSink, ip: str, port: int) -> int:
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)) as probe:
        # With this option, a port that was closed a moment ago counts as free. The server can listen at such a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise SinkError(
                error.errno, f"{sink._name()} cannot have port {port} of {ip} ({error.strerror}); port 0 is a free one"
            ) from error
        found: int = probe.getsockname()[1]
        return found


def _check_viewer(sink: LiveSink) -> None:
    if programs.viewer_executable() is None:
        raise SinkError(f"{sink._name()} needs the Rerun viewer, and there is none: pip install rerun-sdk")
