"""Adds arguments for sinks to the command line of a user's script: `--save`, `--connect`, `--serve` and others.

The command `mpr run` has its own options (`cli.py`).
"""

from __future__ import annotations

import argparse
from typing import Any

from mpr.errors import ConfigError
from mpr.sinks.base import Sink
from mpr.sinks.parse import sink_of_path, sink_of_word
from mpr.sinks.viewers import GrpcSink

# The names of the attributes in the namespace that `argparse` returns.
_DESTINATION = "mpr_sinks"
_RECORDING_ID = "mpr_recording_id"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for sinks to `parser`. Unlike Rerun's own arguments, these can be combined and repeated.

    ```python
    parser = argparse.ArgumentParser()
    mpr.add_arguments(parser)
    args = parser.parse_args()
    with mpr.Pool("my_app", **mpr.from_arguments(args)) as pool:
        ...
    ```

    - `--save PATH`: a file. If `PATH` ends with a slash, a folder with one file per task.
    - `--connect [URL]`: a viewer or server that runs already. By default, it listens at port 9876 of this machine.
    - `--serve [PORT]`: a server for viewers. The default port is 9876.
    - `--web [PORT]`: a server with a web page that shows the recording. The default port of the page is 9090.
    - `--spawn`: a new native viewer.
    - `--recording-id ID`: the id of the recording.

    If the command line names no sink, mpr uses the sinks in the environment variable `MPR_SINKS`, for example
    `MPR_SINKS=run.rrd,rerun+http://127.0.0.1:9876/proxy,serve:9877,web,spawn`. If the variable is not set, mpr chooses
    a sink (see `mpr.SharedRecording`).
    """
    group = parser.add_argument_group("recording (mpr)")
    group.add_argument("--save", metavar="PATH", action=_Append, help="write an .rrd file; PATH/: one per task")
    group.add_argument(
        "--connect",
        metavar="URL",
        nargs="?",
        const="rerun+http://127.0.0.1:9876/proxy",
        action=_Append,
        help="send to a running viewer (default: %(const)s)",
    )
    for word, help_text in (("serve", "serve to viewers"), ("web", "serve a page with a viewer")):
        group.add_argument(f"--{word}", metavar="PORT", nargs="?", const="", action=_Append, help=help_text)
    group.add_argument("--spawn", nargs=0, action=_Append, help="open a viewer")
    group.add_argument("--recording-id", metavar="ID", dest=_RECORDING_ID, help="id of the recording")


def from_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments `sinks` and `recording_id` for `mpr.Pool` and `mpr.SharedRecording`.

    `args` is the result of `parse_args` of a parser that `add_arguments` has extended. A keyword argument is None, its
    default, if the command line does not set it.
    """
    return {"sinks": getattr(args, _DESTINATION, None), "recording_id": getattr(args, _RECORDING_ID, None)}


class _Append(argparse.Action):
    """Makes a sink from an option and its value, and appends the sink to the list of sinks in the namespace.

    Raises `argparse.ArgumentError` if the value cannot be used.
    """

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, _DESTINATION, default=None, **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            sink = _sink(self.option_strings[0].removeprefix("--"), values)
        except ConfigError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, _DESTINATION, [*(getattr(namespace, _DESTINATION, None) or ()), sink])


def _sink(option: str, value: Any) -> Sink:
    if option == "save":
        return sink_of_path(value)
    if option == "connect":
        return GrpcSink(url=value)
    return sink_of_word(f"{option}:{value}" if value else option)
