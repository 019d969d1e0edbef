"""Writes the page of a run: an HTML file with its tests, why they failed, and how to open their recordings.

The page lies in the run's folder and needs only files of this folder, except for its links to a web viewer. So the
folder can be moved or sent as a whole.

Covers: the texts and rows of the page.
Does not cover: the styles and the script of the page (`page.html`), and drawing its pictures (`pictures.py`).
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import FailedPhase, GoldenChange, RecordedTest, Step

NAME = "index.html"
# At most this many parameters have a list of their values, and a list has at most this many values.
_LISTS, _VALUES = 6, 60
# The order of outcomes on the page. Outcomes that need attention come first.
_ORDER = ("crashed", "failed", "interrupted", "passed", "skipped")


class Viewer(NamedTuple):
    """Says how a browser opens a recording of the run.

    `url` is the URL of a web viewer. `recordings` is the URL of the run's folder, from which the web viewer gets the
    recordings.
    """

    url: str
    recordings: str

    def link(self, file: str) -> str:
        """Return the URL that opens `file`, the path of a recording relative to the run's folder."""
        return f"{self.url}?url={quote(f'{self.recordings}/{quote(os.fsencode(file))}', safe='')}"


def hosted_viewer() -> str:
    """Return the URL of the web viewer of rerun.io that has the release of the installed Rerun SDK.

    If the SDK is not installed, return the URL of the newest web viewer.
    """
    try:
        return f"https://app.rerun.io/version/{metadata.version('rerun-sdk')}/"
    except metadata.PackageNotFoundError:
        return "https://app.rerun.io/"


def artifact_viewer(settings: Settings) -> Viewer | None:
    """Return the `Viewer` for recordings that a CI service keeps; None if `settings.artifact_url` is empty."""
    if not settings.artifact_url:
        return None
    return Viewer(hosted_viewer(), f"{settings.artifact_url}/{quote(settings.run)}")


def write(folder: Path, results: Sequence[RecordedTest], viewer: Viewer | None = None) -> Path:
    """Write the page of a run into `folder`, the folder of the run, and return the path of the page.

    `results` and `viewer` are as in `page`. The page replaces an existing page as a whole. Raises `OSError` if the page
    cannot be written.
    """
    path = folder / NAME
    part = folder / f".{NAME}.part"
    part.write_text(page(folder, results, viewer), encoding="utf-8", errors="xmlcharrefreplace")
    part.replace(path)
    return path


def page(folder: Path, results: Sequence[RecordedTest], viewer: Viewer | None = None) -> str:
    """Return the page of a run as HTML.

    `folder` is the folder of the run, to which links are relative, and `results` are the results of its tests. If
    `viewer` is not None, the page has links that open the recordings in this viewer. If it is None, there are links to
    `hosted_viewer`, but a browser shows them only if it has loaded the page from a server.
    """
    template = string.Template(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    has_pictures = any(each.picture is not None for each in results)
    counts = Counter(each.outcome for each in results)
    outcomes = sorted(counts, key=_rank)
    rows = _Rows(folder, viewer, has_pictures)
    return template.substitute(
        title=f"Test run {_text(folder.name)}",
        viewer=_text(hosted_viewer()),
        summary=_summary(results, counts, outcomes),
        how=_how(results),
        choices="\n".join(
            [_choice("", "all", len(results)), *(_choice(each, each, counts[each]) for each in outcomes)]
        ),
        lists="\n".join(_lists(results)),
        head_of_pictures='<th class="wide">Picture</th>' if has_pictures else "",
        rows="\n".join(rows.row(each) for each in in_order(results)),
    )


def _lists(results: Sequence[RecordedTest]) -> Iterator[str]:
    """Yield HTML for each parameter by which the page can be filtered: a list of its values.

    At most six parameters get a list, the most frequent ones first. A parameter gets a list if it has 2 to 60 different
    values.
    """
    values: dict[str, set[str]] = {}
    uses: Counter[str] = Counter()
    for each in results:
        for name, value in each.parameters.items():
            values.setdefault(name, set()).add(value)
            uses[name] += 1
    listed = [name for name, _ in uses.most_common() if 1 < len(values[name]) <= _VALUES]
    for name in listed[:_LISTS]:
        options = "".join(f"<option>{_text(value)}</option>" for value in sorted(values[name], key=_natural))
        yield (
            f'<label class="list">{_text(name)} <select data-name="{_text(name)}"><option value="">any</option>'
            f"{options}</select></label>"
        )


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key for `text` with which numbers are sorted by their size: `[9]` comes before `[10]`."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]


def _rank(outcome: str) -> int:
    return _ORDER.index(outcome) if outcome in _ORDER else len(_ORDER)


def in_order(results: Sequence[RecordedTest]) -> list[RecordedTest]:
    """Return `results` sorted for the page: tests with the worst outcomes first, all attempts of a test together.

    The order of the outcomes is `_ORDER`. A test counts with the worst outcome of its attempts.
    """
    worst: dict[str, int] = {}
    for each in results:
        worst[each.nodeid] = min(worst.get(each.nodeid, len(_ORDER)), _rank(each.outcome))
    return sorted(results, key=lambda each: (worst[each.nodeid], _natural(each.nodeid), each.worker, each.attempt))


def _summary(results: Sequence[RecordedTest], counts: Counter[str], outcomes: Sequence[str]) -> str:
    if not results:
        return "No test was recorded."
    counted = ", ".join(f'<span class="{_text(each)}">{counts[each]} {_text(each)}</span>' for each in outcomes)
    tests = len({each.nodeid for each in results})
    attempts = f" in {len(results)} attempts" if len(results) > tests else ""
    started = min(each.started for each in results)
    ended = max(each.started + (each.duration_secs or 0) for each in results)
    when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(started))
    return f"{_number(tests, 'test')}{attempts}: {counted}. Started {when}, took {_duration(ended - started)}."


def _how(results: Sequence[RecordedTest]) -> str:
    kept = [each for each in results if each.path is not None]
    size = _size(sum(each.size_bytes for each in kept))
    if not kept:
        return "No recording was kept."
    return (
        f"{_number(len(kept), 'recording')} kept, {size}. The commands open them, in this folder, with the viewer of "
        "<code>pip install rerun-sdk</code>."
    )


def _choice(outcome: str, label: str, count: int) -> str:
    checked = "" if outcome else " checked"
    name = f'<span class="{_text(outcome)}">{_text(label)}</span>'
    return f'<label><input type="radio" name="outcome" value="{_text(outcome)}"{checked}>{name} {count}</label>'


class _Rows:
    """Makes the rows of the page's table. `folder` and `viewer` are as in `page`.

    If `has_pictures` is true, each row has a cell for a picture.
    """

    def __init__(self, folder: Path, viewer: Viewer | None, has_pictures: bool) -> None:
        self._folder = folder
        self._viewer = viewer
        self._has_pictures = has_pictures

    def row(self, test: RecordedTest) -> str:
        outcome = _text(test.outcome)
        where, colons, name = _parts(test.nodeid)
        more = [f"attempt {test.attempt + 1}"] if test.attempt else []
        more += [] if test.worker == "main" else [test.worker]
        which = f' <span class="where">{_text(", ".join(more))}</span>' if more else ""
        messages = [each.message for each in test.failures]
        parts = [
            f'<div class="name"><span class="where">{_text(where + colons)}</span>{_text(name)}{which}</div>',
            _parameters(test),
            *map(_failure, test.failures),
            _steps(test.steps),
            self._recording(test),
            *(f'<div class="note">{_text(note)}</div>' for note in test.notes if note not in messages),
            *map(self._golden, test.goldens),
        ]
        attributes = f' data-why="{_text(" ".join(messages).lower())}"' if messages else ""
        if test.parameters:
            attributes += f' data-parameters="{_text(json.dumps(dict(test.parameters)))}"'
        duration = "" if test.duration_secs is None else _duration(test.duration_secs)
        return (
            f'<tr data-outcome="{outcome}" data-test="{_text(test.nodeid.lower())}"{attributes}>'
            f'<td class="outcome {outcome}" data-key="{_rank(test.outcome)}">{outcome}</td>'
            f'<td class="test" data-key="{_text(test.nodeid)}">{"".join(parts)}</td>'
            f'<td class="number" data-key="{test.duration_secs or 0:.6f}">{duration}</td>'
            f'<td class="number" data-key="{test.size_bytes}">{_size(test.size_bytes) if test.path else ""}</td>'
            f"{self._picture_of(test)}</tr>"
        )

    def _recording(self, test: RecordedTest) -> str:
        if test.path is None:
            return ""
        command = f"rerun {shlex.quote(os.path.relpath(test.path, self._folder))}"
        link = _link(self._folder, test.path)
        view = f'<a class="view" hidden data-file="{link}">open in the web viewer</a>'
        if self._viewer is not None:
            target = _text(self._viewer.link(os.path.relpath(test.path, self._folder)))
            view = f'<a class="view" href="{target}">open in the web viewer</a>'
        download = f'<a href="{link}" download>download</a>'
        return f'<div class="open">{view} <code>{_text(command)}</code> {download}</div>'

    def _picture_of(self, test: RecordedTest) -> str:
        if not self._has_pictures:
            return ""
        if test.picture is None:
            return '<td class="none"></td>'
        return f'<td class="picture">{self._picture(test.picture, "What the viewer shows of it")}</td>'

    def _picture(self, path: Path, text: str) -> str:
        link = _link(self._folder, path)
        return f'<a href="{link}"><img src="{link}" loading="lazy" alt="{_text(text)}"></a>'

    def _golden(self, change: GoldenChange) -> str:
        what = "was written again" if change.written else "differs"
        figures = [
            f"<figure>{self._picture(path, f'{when} of {change.name}')}<figcaption>{when}</figcaption></figure>"
            for path, when in (
                (change.before_picture, "before" if change.written else "expected"),
                (change.after_picture, "after" if change.written else "found"),
            )
            if path is not None
        ]
        pair = f'<div class="pair">{"".join(figures)}</div>' if figures else ""
        first = f"<div>{_text(change.first)}</div>" if change.first and change.written else ""
        files = shlex.join(["rerun", change.before, change.after])
        return (
            f'<div class="golden">The golden recording <code>{_text(change.name)}</code> {what}. '
            f"Both: <code>{_text(files)}</code>{first}{pair}</div>"
        )


def _parts(nodeid: str) -> tuple[str, str, str]:
    """Return the parts of a node id: the path of the file and the classes, the last `::`, and the name of the test.

    A `::` in the brackets of the name is a part of the name.
    """
    head, bracket, tail = nodeid.partition("[")
    where, colons, name = head.rpartition("::")
    return where, colons, name + bracket + tail


def _parameters(test: RecordedTest) -> str:
    if not test.parameters:
        return ""
    found = "".join(
        f'<button type="button" data-name="{_text(name)}" data-value="{_text(value)}">'
        f"{_text(f'{name}={value}')}</button>"
        for name, value in test.parameters.items()
    )
    return f'<div class="parameters">{found}</div>'


def _failure(failure: FailedPhase) -> str:
    """Return HTML for a failure. If pytest's text says more than the message, a click on the HTML opens the text."""
    where = f"<code>{_text(failure.where)}</code>" if failure.where else ""
    source = f'<code class="source">{_text(failure.source)}</code>' if failure.source else ""
    head = f'<b>{_text(failure.message)}</b><span class="line">{_text(failure.phase)} {where} {source}</span>'
    if not failure.text or failure.text.strip() == failure.message:
        return f'<div class="why">{head}</div>'
    lines = "\n".join(
        f"<i>{_text(line)}</i>" if line.startswith(("E  ", ">  ")) else _text(line)
        for line in failure.text.splitlines()
    )
    return f'<details class="why"><summary>{head}</summary><pre>{lines}</pre></details>'


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    found = "".join(
        f"<li{'' if each.outcome == 'passed' else f' class={_text(each.outcome)}'}>{_text(each.name)} "
        f"{_duration(each.duration_secs) if each.duration_secs is not None else _text(each.outcome)}"
        for each in steps
    )
    return f'<ol class="steps">{found}</ol>'


def _link(folder: Path, path: Path) -> str:
    """Return a URL of `path` relative to `folder`, escaped for HTML. The URL stays valid if the folder is moved."""
    return _text(quote(os.fsencode(os.path.relpath(path, folder))))


def _text(text: str) -> str:
    return html.escape("".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text))


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _duration(secs: float) -> str:
    if secs < 1:
        return f"{secs * 1000:.0f} ms"
    if secs < 60:
        return f"{secs:.1f} s"
    return f"{int(secs // 60)} min {int(secs % 60)} s"


def _size(size: int) -> str:
    return f"{size / 1e3:,.0f} kB" if size < 10e6 else f"{size / 1e6:,.0f} MB"
