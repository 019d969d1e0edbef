"""Defines the commands of the command line `mpr`.

The commands are `run`, `doctor`, `recover`, `verify` and `compare`, and for a folder with one recording per task `ls`,
`open` and `index`.

Covers: the options, the texts that the commands print, and their exit statuses.
Does not cover: the work of the commands (`run/command.py`, `rrd/recover.py`, `rrd/verify.py`, `compare/compare.py`,
`datasets/query.py`, `sinks/index.py`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import mpr

if TYPE_CHECKING:
    from mpr.rrd.recover import Recovered
    from mpr.rrd.verify import VerifiedRecording


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mpr.__version__, prog_name="mpr")
def main() -> None:
    """Collect the rows of many processes in one Rerun recording."""


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--save", "paths", multiple=True, metavar="FILE", help="Write an .rrd file; by default a new one here.")
@click.option("--connect", "urls", multiple=True, metavar="URL", help="Send to a viewer (rerun+http://...).")
@click.option("--serve", is_flag=True, help="Serve to viewers that connect.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port for --serve, 0 for a free one; by default 9876.")
@click.option("--spawn", is_flag=True, help="Open a viewer.")
@click.option("--application-id", help="As in rr.init; by default the name of the script.")
@click.option("-q", "--quiet", is_flag=True, help="At the end, only say what may be missing.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    paths: tuple[str, ...],
    urls: tuple[str, ...],
    serve: bool,
    port: int | None,
    spawn: bool,
    application_id: str | None,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND, an unchanged script that uses Rerun, with all of its processes in one recording.

    \b
    mpr run --save run.rrd -- python script.py --its-own options

    mpr run prints where the rows are, and exits with the exit status of the command. If the command exits with 0, but
    the recording has failed, the exit status is 1.

    Calls in the script that choose a destination for the rows, such as rr.save and rr.spawn, open nothing. A blueprint
    in such a call is used. A rerun.RecordingStream that the script makes keeps the files that the script gives it.
    Without a file, its rows are in a file of their own, beside the file of the run. But if the script shows them in a
    viewer and does not call rr.init, they are in the file of the run.
    """
    from mpr.errors import MprError
    from mpr.run.command import run as run_command
    from mpr.sinks.parse import sink_of_word

    if port is not None and not serve:
        raise click.UsageError("--port is for --serve")
    try:
        words = [*(["serve" if port is None else f"serve:{port}"] if serve else []), *(["spawn"] if spawn else [])]
        summary = run_command(command, application_id, [*paths, *urls, *map(sink_of_word, words)])
    except MprError as error:
        raise click.ClickException(str(error)) from error
    for line in () if quiet else summary.lines():
        _say(line)
    for line in summary.losses():
        _say(line, "yellow")
    if summary.failure is not None:
        _say(str(summary.failure), "red")
    sys.exit(summary.exit_status)


def _say(text: str, colour: str | None = None) -> None:
    """Write a line with "mpr run:" and `text` to stderr. In a terminal, `text` has `colour` (None: no colour)."""
    click.echo(f"{click.style('mpr run:', bold=True)} {click.style(text, fg=colour)}", err=True)


@main.command()
def doctor() -> None:
    """Print whether mpr knows the file format of the installed Rerun SDK, and finds all SDK functions that it uses.

    The exit status is 0 if both are true, else 1. The command also says if mpr was not tested with this release of the
    SDK.
    """
    import rerun

    from mpr.processes import start
    from mpr.rrd import compat
    from mpr.sdk import private_names

    click.echo(f"mpr {mpr.__version__}, rerun-sdk {rerun.__version__}, Python {sys.version.split()[0]}")
    if private_names.untested_version() is not None:
        click.echo(f"not tested with this rerun-sdk, but with {private_names.tested_versions()}")
    click.echo(f"start method: {start.check_start_method(None)}")
    unknown = compat.format_is_known()
    if unknown is None:
        click.echo("file format: known; files are written without decoding")
    else:
        click.echo(f"file format: not known ({unknown}); files are written by decoding, which is slower")
    missing = private_names.missing()
    click.echo(f"functions of the SDK: {len(private_names.NAMES) - len(missing)} of {len(private_names.NAMES)} found")
    for name in missing:
        click.echo(f"  {name} is missing: {private_names.NAMES[name].without}")
    sys.exit(1 if unknown is not None or missing else 0)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
def recover(paths: tuple[Path, ...]) -> None:
    """Make valid files from the files that a killed process has left.

    PATH is an .rrd file, an unfinished file (.rrd.part), or a folder with such files. The valid file has every whole
    message of the original that the SDK can read. After the valid file has been verified, it replaces the original. If
    the original is an unfinished file, the valid file gets the final name. If the valid file may lack more than an
    incomplete message at the end, the original is kept under a name that ends with .damaged (or .damaged-1 and so on).
    Valid files, and files that a process still writes, are not changed. Links in a folder are not followed.

    A recording of a test that was running when pytest was killed gets the node id, the outcome "crashed" and the phases
    of the test.

    The exit status is 1 if a file cannot be recovered, also because a process still writes it, or if there is no such
    file at a PATH. Otherwise, it is 0.
    """
    from mpr.errors import SinkError
    from mpr.rrd import recover as recovery

    of_test = _recovery_of_tests()
    failed = False
    for path in paths:
        found = recovery.find(path)
        if not found:
            failed = True
            _echo(f"mpr recover: there is no .rrd file in {path}", err=True)
        for each in found:
            try:
                _echo(of_test(each) or _in_words(recovery.recover(each)))
            except SinkError as error:
                failed = True
                _echo(f"mpr recover: {error.strerror or error}", err=True)
            except OSError as error:
                # A journal of pytest cannot be read or written.
                failed = True
                _echo(f"mpr recover: {each}: {error}", err=True)
    sys.exit(1 if failed else 0)


def _recovery_of_tests() -> Callable[[Path], str | None]:
    """Return a function that repairs the recording of a test that ran when pytest was killed.

    The function takes the path of a file, and returns what it has done as text. It returns None if the file is no
    recording of such a test, or if pytest is not installed.
    """

    @functools.cache
    def runs() -> Any:
        try:
            from mpr.pytest_plugin.report.recovery import KilledRuns
        except ImportError:
            return None
        return KilledRuns()

    def recovered(path: Path) -> str | None:
        # Importing pytest takes some tenths of a second.
        has_journal = any(path.parent.glob("journal-*.jsonl"))
        return runs().recover(path) if has_journal and runs() is not None else None

    return recovered


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
def verify(paths: tuple[Path, ...]) -> None:
    """Check that no row of a recording is missing.

    When mpr closes a recording of a pool with telemetry, it writes the number of rows into the file. This command reads
    the whole FILE, counts its rows with times, and compares both numbers. The exit status is 0 if no row is missing,
    and 1 if rows were lost or the numbers differ. It is 2 if a FILE cannot be read, or has no such number. With several
    files, it is the highest of their statuses.
    """
    from mpr.errors import SinkError
    from mpr.rrd import verify as verification

    status = 0
    for path in paths:
        try:
            found = verification.verify(path)
        except SinkError as error:
            click.echo(f"mpr verify: {error.strerror or error}", err=True)
            status = 2
            continue
        for each in found:
            click.echo(f"{path}: {_in_a_sentence(each)}")
            status = max(status, 0 if each.is_whole else 2 if each.expected_rows is None else 1)
    sys.exit(status)


def _in_a_sentence(found: VerifiedRecording) -> str:
    if found.expected_rows is None:
        reason = "mpr did not write and finish it, or its recording had no pool with telemetry"
        return f"{found.rows} rows; the file does not say how many it should have: {reason}"
    if found.rows != found.expected_rows:
        return f"{found.rows} rows, but {found.expected_rows} when the recording was closed: the file was changed"
    if found.lost_rows:
        return f"{found.rows} rows; {found.lost_rows} more were logged and are lost"
    return f"{found.rows} rows with times, none is missing"


@main.command()
@click.argument("expected", type=click.Path(path_type=Path))
@click.argument("actual", type=click.Path(path_type=Path))
@click.option("--level", type=click.Choice(["values", "summary"]), default="values", show_default=True)
@click.option("--ignore-timeline", "timelines", multiple=True, metavar="NAME", help="Besides log_time and log_tick.")
@click.option("--ignore-entity", "entities", multiple=True, metavar="PATH", help="/a/** is /a and all below it.")
@click.option("--tolerance", type=float, default=0.0, help="For floating point numbers, as a share of 1 or more.")
def compare(
    expected: Path,
    actual: Path,
    level: Literal["values", "summary"],
    timelines: tuple[str, ...],
    entities: tuple[str, ...],
    tolerance: float,
) -> None:
    """Print the differences between two recordings, one per line.

    The order of the rows, their division into chunks, their row ids, and the ids of the recordings are not compared.
    The exit status is 0 if the recordings are equal, 1 if they differ, and 2 if a file cannot be read.
    """
    from mpr.compare.compare import IGNORED_ENTITIES, IGNORED_TIMELINES, differences
    from mpr.compare.reading import unreadable
    from mpr.errors import RecordingError

    try:
        for reason in unreadable([expected, actual]).values():
            raise RecordingError(reason)
        found = differences(
            expected,
            actual,
            level=level,
            ignore_timelines=(*IGNORED_TIMELINES, *timelines),
            ignore_entities=(*IGNORED_ENTITIES, *entities),
            tolerance=tolerance,
        )
    except RecordingError as error:
        _echo(f"mpr compare: {error}", err=True)
        sys.exit(2)
    for each in found:
        _echo(each)
    sys.exit(1 if found else 0)


_WHERE = click.option("--where", metavar="CONDITION", help="Such as \"lr < 0.1 and outcome != 'returned'\".")
_SORT = click.option("--sort", metavar="COLUMN", help="-COLUMN is the reverse order.")
_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


def _runs(folder: Path, where: str | None, sort: str | None) -> list[dict[str, Any]]:
    from mpr.datasets import query
    from mpr.errors import MprError

    try:
        return query.selected(query.runs(folder), where, sort)
    except MprError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_FOLDER
@_WHERE
@_SORT
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON with all columns for each recording.")
def ls(folder: Path, where: str | None, sort: str | None, *, as_json: bool) -> None:
    """List the recordings of the tasks in FOLDER, from its manifest.

    The table has the path, the outcome, the arguments that are not equal in all recordings, the seconds and the size in
    bytes.

    A CONDITION can use each argument by its name, such as lr or cfg.lr. It can also use path, name, outcome, seconds,
    size, function, index, attempt, worker, host, error, started, digest, recording_id and sdk. A comparison with a
    missing value is false, unless the condition compares with None.
    """
    import json

    from mpr.datasets import query

    found = _runs(folder, where, sort)
    for line in map(json.dumps, found) if as_json else query.shown(found):
        _echo(line)


@main.command("open")
@_FOLDER
@_WHERE
@_SORT
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Open this many at most.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def open_(folder: Path, where: str | None, sort: str | None, limit: int, options: tuple[str, ...]) -> None:
    """Open the recordings of the tasks in FOLDER in one viewer.

    The OPTIONS after -- go to the viewer, which is the program rerun.
    """
    import os

    from mpr.sdk import programs

    found = [str(folder / each["path"]) for each in _runs(folder, where, sort)]
    if not found:
        raise click.ClickException(f"no recording in {folder} is selected")
    if len(found) > limit:
        _echo(f"mpr open: {limit} of {len(found)} recordings are opened; --limit is for more", err=True)
    program = programs.viewer_executable()
    command = [program] if program is not None else [sys.executable, "-m", "rerun"]
    os.execv(command[0], [*command, *found[:limit], *options])  # noqa: S606  # the viewer takes the place of this process


@main.command()
@_FOLDER
def index(folder: Path) -> None:
    """Make the manifest of FOLDER again from the recordings of its tasks.

    The exit status is 1 if a file is left out, because it is not complete or is no recording of a task.
    """
    from mpr.errors import MprError
    from mpr.sinks import index as making

    try:
        count, left_out = making.make(folder)
    except MprError as error:
        raise click.ClickException(str(error)) from error
    for path in left_out:
        _echo(f"{path}: left out, because it is not complete or is no recording of a task", err=True)
    _echo(f"{folder}: {count} recordings")
    sys.exit(1 if left_out else 0)


def _echo(text: str, *, err: bool = False) -> None:
    """Write `text` as one line to stdout, or to stderr if `err` is true.

    Characters that have no UTF-8 form, as in some file names, are written as escapes.
    """
    click.echo(text.encode(errors="backslashreplace").decode(), err=err)


def _in_words(recovered: Recovered) -> str:
    if recovered.was_whole:
        return f"{recovered.path}: is whole"
    text = f"{recovered.path}: recovered"
    if recovered.chunk_count is not None:
        text += f", {recovered.chunk_count} chunks"
    if recovered.dropped_bytes:
        text += f"; {recovered.dropped_bytes} bytes of it were no whole message"
    if recovered.original is not None:
        text += f"; parts of it could not be read, so the original is kept as {recovered.original}"
    return text


if __name__ == "__main__":
    main()
