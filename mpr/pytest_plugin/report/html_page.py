"""Writes the page of a run: an HTML file with its tests, their outcomes, and commands that open their recordings.

The page lies in the run's folder and needs only files of this folder. So the folder can be moved or sent as a whole.

Covers: the texts and rows of the page.
Does not cover: the styles and the script of the page (`page.html`), and drawing its pictures (`pictures.py`).
"""

from __future__ import annotations

import html
import os
import shlex
import string
import time
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from mpr.pytest_plugin.results import RecordedTest

NAME = "index.html"
# The order of outcomes on the page. Outcomes that need attention come first.
_ORDER = ("crashed", "failed", "interrupted", "passed", "skipped")


def write(folder: Path, results: Sequence[RecordedTest]) -> Path:
    """Write the page of a run into `folder`, the folder of the run, and return the path of the page.

    `results` are the results of the run's tests. If there is a page already, the new one replaces it as a whole. Raises
    `OSError` if the page cannot be written.
    """
    path = folder / NAME
    part = folder / f".{NAME}.part"
    part.write_text(page(folder, results), encoding="utf-8", errors="xmlcharrefreplace")
    part.replace(path)
    return path


def page(folder: Path, results: Sequence[RecordedTest]) -> str:
    """Return the page of a run as HTML. `results` are the results of its tests. Links are relative to `folder`."""
    template = string.Template(resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    has_pictures = any(each.picture is not None for each in results)
    counts = Counter(each.outcome for each in results)
    outcomes = sorted(counts, key=_rank)
    return template.substitute(
        title=f"Test run {_text(folder.name)}",
        summary=_summary(results, counts, outcomes),
        how=_how(results),
        choices="\n".join(
            [_choice("", "all", len(results)), *(_choice(each, each, counts[each]) for each in outcomes)]
        ),
        head_of_pictures='<th class="wide">Picture</th>' if has_pictures else "",
        rows="\n".join(_row(folder, each, has_pictures) for each in _in_order(results)),
    )


def _rank(outcome: str) -> int:
    return _ORDER.index(outcome) if outcome in _ORDER else len(_ORDER)


def _in_order(results: Sequence[RecordedTest]) -> list[RecordedTest]:
    """Return `results` sorted for the page: tests with the worst outcomes first, and all attempts of a test together.

    The order of outcomes is `_ORDER`, from "crashed" to "skipped".
    """
    worst: dict[str, int] = {}
    for each in results:
        worst[each.nodeid] = min(worst.get(each.nodeid, len(_ORDER)), _rank(each.outcome))
    return sorted(results, key=lambda each: (worst[each.nodeid], each.nodeid, each.worker, each.attempt))


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


def _row(folder: Path, test: RecordedTest, has_pictures: bool) -> str:
    outcome = _text(test.outcome)
    where, colons, name = test.nodeid.rpartition("::")
    more = [f"attempt {test.attempt + 1}"] if test.attempt else []
    more += [] if test.worker == "main" else [test.worker]
    duration = "" if test.duration_secs is None else _duration(test.duration_secs)
    notes = "".join(f'<div class="note">{_text(note)}</div>' for note in test.notes)
    return (
        f'<tr data-outcome="{outcome}" data-test="{_text(test.nodeid.lower())}">'
        f'<td class="outcome {outcome}" data-key="{_rank(test.outcome)}">{outcome}</td>'
        f'<td class="test" data-key="{_text(test.nodeid)}"><span class="where">{_text(where + colons)}</span>'
        f'{_text(name)} <span class="where">{_text(", ".join(more))}</span>{_recording(folder, test)}{notes}</td>'
        f'<td class="number" data-key="{test.duration_secs or 0:.6f}">{duration}</td>'
        f'<td class="number" data-key="{test.size_bytes}">{_size(test.size_bytes) if test.path else ""}</td>'
        f"{_picture(folder, test) if has_pictures else ''}</tr>"
    )


def _recording(folder: Path, test: RecordedTest) -> str:
    if test.path is None:
        return ""
    command = f"rerun {shlex.quote(os.path.relpath(test.path, folder))}"
    download = f'<a href="{_link(folder, test.path)}" download>download</a>'
    return f'<div class="open"><code>{_text(command)}</code> {download}</div>'


def _picture(folder: Path, test: RecordedTest) -> str:
    if test.picture is None:
        return "<td></td>"
    link = _link(folder, test.picture)
    image = f'<img src="{link}" loading="lazy" alt="What the viewer shows of it">'
    return f'<td class="picture"><a href="{link}">{image}</a></td>'


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
