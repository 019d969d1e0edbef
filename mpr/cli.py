"""The command line: `mpr`."""

from __future__ import annotations

import sys

import click

import mpr


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mpr.__version__, prog_name="mpr")
def main() -> None:
    """One Rerun recording out of many processes."""


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
