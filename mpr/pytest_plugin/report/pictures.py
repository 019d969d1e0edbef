"""Draws pictures of recordings, and of golden recordings before and after a change, when all tests have ended.

Covers: which recordings get a picture, their order, and the limits on the time and the number of viewers.
Does not cover: drawing one picture (`mpr.picture`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpr import picture
from mpr.errors import NoViewerError, PictureError
from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.report import html_page
from mpr.pytest_plugin.results import GoldenChange, RecordedTest

if TYPE_CHECKING:
    import rerun.blueprint as rrb

# The largest number of viewers that draw at the same time. A viewer without a graphics card needs a whole processor.
_MOST_VIEWERS = 4


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """Says which recording to draw (`source`), and into which file (`target`).

    `is_urgent` is true for a test that has failed and for a golden recording. Urgent pictures are drawn first.
    `blueprint`, `timeline` and `time` are arguments of `mpr.picture.render`.
    """

    source: Path
    target: Path
    is_urgent: bool
    blueprint: Any = None
    timeline: str | None = None
    time: int | None = None


def drawn(
    settings: Settings,
    results: Sequence[RecordedTest],
    layouts: Mapping[Path, rrb.Blueprint],
    troubles: list[str],
) -> list[RecordedTest]:
    """Draw the pictures that `settings` asks for, and return a copy of `results` with the paths of the pictures.

    `layouts` has the layouts of some recordings, by the paths of the recordings. Drawing ends after about
    `settings.screenshots_secs` seconds. If pictures are not drawn for this reason, or because this machine cannot draw,
    the reason is added to `troubles`. If only the recording of one test cannot be drawn, the reason is added to the
    notes of the test. A golden recording that cannot be drawn has no picture, and no note.
    """
    wishes = [wish for each in html_page.in_order(results) for wish in _wishes(settings, each, layouts)]
    if not wishes:
        return list(results)
    found = _Pictures(settings, troubles).draw(sorted(wishes, key=lambda wish: not wish.is_urgent))
    return [_with_pictures(settings, each, found) for each in results]


def _wishes(settings: Settings, test: RecordedTest, layouts: Mapping[Path, rrb.Blueprint]) -> list[_Wish]:
    wishes = []
    asked = settings.screenshot == "on" or (settings.screenshot == "only-on-failure" and test.failed)
    if asked and test.path is not None:
        target = test.path.with_suffix(".png")
        wishes.append(_Wish(source=test.path, target=target, is_urgent=test.failed, blueprint=layouts.get(test.path)))
    for each in test.goldens:
        if (each.written and settings.screenshot_updates) or asked:
            wishes += [
                _Wish(
                    source=path,
                    target=path.with_suffix(".png"),
                    is_urgent=True,
                    timeline=each.timeline,
                    time=each.time,
                )
                for path in _both(settings, each)
            ]
    return wishes


def _both(settings: Settings, change: GoldenChange) -> tuple[Path, Path]:
    return settings.folder / change.before, settings.folder / change.after


class _Pictures:
    """Draws pictures in several threads, within `settings.screenshots_secs` seconds from the creation of this object.

    Parameters
    ----------
    settings:
        The options of the run.
    troubles:
        A list to which the reason is added if this machine cannot draw, or if the time is over.
    """

    def __init__(self, settings: Settings, troubles: list[str]) -> None:
        self._settings = settings
        self._troubles = troubles
        self._end = time.monotonic() + settings.screenshots_secs
        self._lock = threading.Lock()
        self._cannot_draw = False
        self._left = 0

    def draw(self, wishes: Sequence[_Wish]) -> dict[Path, str | None]:
        """Draw pictures in the order of `wishes`, which must not be empty. Up to four are drawn at the same time.

        Returns a dict with the path of each recording that was tried. The value is None if the picture was drawn, else
        the text of the error.
        """
        # The first picture is drawn alone: if this machine cannot draw, there is only one error.
        outcomes = [self._draw(wishes[0])]
        with ThreadPoolExecutor(min(_MOST_VIEWERS, os.cpu_count() or 1)) as threads:
            try:
                outcomes += threads.map(self._draw, wishes[1:])
            except BaseException:
                # After Ctrl-C, only the pictures that are being drawn are waited for.
                self._end = 0.0
                raise
        if self._left:
            spent = f"mpr_screenshots_time = {self._settings.screenshots_secs:g} s"
            self._troubles.append(f"no pictures of the last {self._left} recordings: {spent} are over")
        return {wish.source: error for wish, (tried, error) in zip(wishes, outcomes, strict=True) if tried}

    def _draw(self, wish: _Wish) -> tuple[bool, str | None]:
        """Draw one picture. Return (True, None), or (True, error) if this recording cannot be drawn.

        If drawing fails with the timeline of `wish`, try again without the timeline. Return (False, None) if the time
        for all pictures is over, or if this machine cannot draw.
        """
        with self._lock:
            left_secs = self._end - time.monotonic()
            if self._cannot_draw:
                return False, None
            if left_secs <= 0:
                self._left += 1
                return False, None
        try:
            picture.render(
                wish.source,
                wish.target,
                timeout_secs=min(left_secs, self._settings.screenshot_timeout_secs),
                blueprint=wish.blueprint,
                timeline=wish.timeline,
                time=wish.time,
            )
        except NoViewerError as error:
            with self._lock:
                if not self._cannot_draw:
                    self._troubles.append(f"no pictures: {error}")
                self._cannot_draw = True
            return False, None
        except (PictureError, OSError) as error:
            if wish.timeline is not None:
                # Only one of the two golden recordings may have this timeline.
                return self._draw(replace(wish, timeline=None, time=None))
            return True, str(error)
        return True, None


def _with_pictures(settings: Settings, test: RecordedTest, found: Mapping[Path, str | None]) -> RecordedTest:
    goldens = []
    for each in test.goldens:
        before, after = (
            path.with_suffix(".png") if found.get(path, "not drawn") is None else None for path in _both(settings, each)
        )
        goldens.append(replace(each, before_picture=before, after_picture=after))
    test = replace(test, goldens=tuple(goldens))
    if test.path is None or test.path not in found:
        return test
    error = found[test.path]
    if error is not None:
        return replace(test, notes=(*test.notes, f"no picture: {error}"))
    return replace(test, picture=test.path.with_suffix(".png"))
