"""The command line: `mpr`."""

from __future__ import annotations

import sys

import click

import mpr


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mpr.__version__, prog_name="mpr")
def main() -> None:
    """One Rerun recording out of many processes."""


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--save", "paths", multiple=True, metavar="FILE", help="Write an .rrd file; by default a new one here.")
@click.option("--connect", "urls", multiple=True, metavar="URL", help="Send to a viewer (rerun+http://...).")
@click.option("--application-id", help="As in rr.init; by default the name of the script.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(paths: tuple[str, ...], urls: tuple[str, ...], application_id: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND, a script that uses Rerun as it is, with all of its processes in one recording.

    \b
    mpr run --save run.rrd -- python script.py --its-own options

    Its exit status is the command's. What rr.init, rr.save, rr.spawn and the like say in the script about where its
    rows go does not count; a rerun.RecordingStream of its own stays its own.
    """
    from mpr.errors import MprError
    from mpr.run import run as run_command

    try:
        status = run_command(command, application_id, [*paths, *urls])
    except MprError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


@main.command()
def doctor() -> None:
    """Say whether mpr and the installed Rerun SDK understand each other."""
    import rerun

    from mpr import entries, processes, sdk

    click.echo(f"mpr {mpr.__version__}, rerun-sdk {rerun.__version__}, Python {sys.version.split()[0]}")
    click.echo(f"start method: {processes.check_start_method(None)}")
    unknown = sdk.format_is_known()
    if unknown is None:
        click.echo("file format: known; files are written without decoding")
    else:
        click.echo(f"file format: not known ({unknown}); files are written by decoding, which is slower")
    missing = entries.missing_entries()
    if missing:
        click.echo(f"entries that this SDK lacks: {', '.join(missing)}; every task is flushed, logging or not")
    sys.exit(1 if unknown is not None or missing else 0)


if __name__ == "__main__":
    main()
