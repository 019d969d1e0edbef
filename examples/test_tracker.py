"""Test a tracker. One of the tests fails, and its recording shows why.

    pip install '.[pytest]'      # in a clone of mpr; `rerun-mpr[pytest]` once it is published
    pytest --mpr=retain-on-failure test_tracker.py          # names the recording at the end
    pytest --mpr=retain-on-failure --mpr-screenshot=only-on-failure test_tracker.py     # and draws it

The tracker looks for the brightest spot near the place where it has seen the ball last. If the ball stays behind the
wall for long, the tracker does not find it again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import rerun as rr
import rerun.blueprint as rrb

HEIGHT, WIDTH, FRAMES = 120, 200, 60
WALL = slice(90, 120)  # columns that hide the ball
NEAR = 12  # pixels; the tracker assumes that the ball moves less between two frames


def film(pixels_per_frame: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the frames of a film, and the place of the ball in each frame as (x, y), in pixels.

    The ball goes from left to right, behind a wall. A frame is a gray image of shape (HEIGHT, WIDTH).
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for frame in range(FRAMES):
        place = np.array([20 + pixels_per_frame * frame, 60 + 25 * np.sin(frame / 9)])
        light = 200 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 40)
        light[:, WALL] = 70
        yield (light + random.integers(0, 30, light.shape)).clip(0, 255).astype(np.uint8), place


def track(frame: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the place of the ball in `frame` as (x, y) in pixels: the brightest spot near its last place.

    If there is no bright spot near `last`, return `last`.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    near = np.hypot(x - last[0], y - last[1]) < NEAR
    row, column = np.unravel_index(np.argmax(np.where(near, frame, 0)), frame.shape)
    return np.array([column, row], float) if frame[row, column] > 120 else last


@pytest.fixture(autouse=True)
def layout() -> None:
    """Send a layout into each test's recording: the film, the distance, and the rows of pytest."""
    rr.send_blueprint(
        rrb.Blueprint(
            rrb.Horizontal(
                rrb.Spatial2DView(name="Ball (green) and track (red)", contents=["film/**"]),
                rrb.Vertical(
                    rrb.TimeSeriesView(name="Pixels between them", contents=["distance"]),
                    rrb.TextLogView(name="pytest", contents=["pytest/**"]),
                ),
                column_shares=[3, 2],
            ),
            rrb.TimePanel(state="collapsed", timeline="frame"),
            collapse_panels=True,
        )
    )


@pytest.mark.parametrize("pixels_per_frame", [1.0, 2.5], ids=["slow", "fast"])
def test_the_ball_is_found_again_behind_the_wall(pixels_per_frame: float) -> None:
    last = np.array([20.0, 60.0])
    for number, (frame, place) in enumerate(film(pixels_per_frame)):
        last = track(frame, last)
        distance = float(np.hypot(*(last - place)))
        rr.set_time("frame", sequence=number)
        rr.log("film", rr.Image(frame))
        rr.log("film/ball", rr.Points2D([place], colors=(80, 220, 120), radii=4))
        rr.log("film/track", rr.Boxes2D(centers=[last], half_sizes=[(NEAR, NEAR)], colors=(255, 80, 80)))
        rr.log("distance", rr.Scalars(distance))
    assert distance < NEAR, f"the track is {distance:.0f} pixels away from the ball"
