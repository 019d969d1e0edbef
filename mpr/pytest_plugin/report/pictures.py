"""Draws pictures of the recordings of failed tests, when all tests have ended.

Nothing is drawn while tests run, because drawing would slow down the tests.

Covers: which recordings get a picture, and the limit on the time for all pictures of a run.
Does not cover: drawing one picture (`mpr.picture`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from mpr import picture
from mpr.errors import NoViewerError, PictureError
from mpr.pytest_plugin.options import Settings
from mpr.pytest_plugin.results import RecordedTest


def drawn(settings: Settings, results: Sequence[RecordedTest], troubles: list[str]) -> list[RecordedTest]:
    """Draw a picture for each failed test whose recording was kept, if `settings.screenshot` asks for pictures.

    Returns a copy of `results` in which the drawn tests have the paths of their pictures. When all pictures together
    have taken `settings.screenshots_secs` seconds, no more are drawn, and `troubles` gets a text with the number of
    missing pictures. If this machine cannot draw, `troubles` gets the reason. If a single picture cannot be drawn, the
    notes of its test get the reason.
    """
    wanted = settings.screenshot == "only-on-failure"
    end = time.monotonic() + settings.screenshots_secs
    found, left = [], 0
    for each in results:
        if wanted and each.failed and each.path is not None:
            left_secs = end - time.monotonic()
            if left_secs > 0:
                try:
                    each = _drawn(each, min(left_secs, settings.screenshot_timeout_secs))
                except NoViewerError as error:
                    troubles.append(f"no pictures: {error}")
                    wanted = False
            else:
                left += 1
        found.append(each)
    if left:
        spent = f"mpr_screenshots_time = {settings.screenshots_secs:g} s"
        troubles.append(f"no pictures of the last {left} recordings: {spent} are over")
    return found


def _drawn(result: RecordedTest, timeout_secs: float) -> RecordedTest:
    assert result.path is not None
    target = result.path.with_suffix(".png")
    try:
        picture.render(result.path, target, timeout_secs=timeout_secs)
    except NoViewerError:
        raise
    except (PictureError, OSError) as error:
        return replace(result, notes=(*result.notes, f"no picture: {error}"))
    return replace(result, picture=target)
