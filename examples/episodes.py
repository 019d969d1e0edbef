"""Make a data set as a folder of episodes: each task has a recording with its properties and its outcome.

Each task is an episode: a policy with random gains tries to swing a pendulum up. `mpr.DirectorySink` gives every
episode a file, which is finished when the pool returns the episode's result. You can open all files in the viewer, or
serve the folder as a dataset of Rerun's catalog.

    python episodes.py
    rerun episodes/*.rrd
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

import mpr

STEPS, STEP_SECS = 200, 0.05


def episode(seed: int) -> float:
    """Run one episode with the random numbers of `seed`, and return the sum of its rewards. Runs in a worker.

    Logs what a robot would log at each step: observation, action and reward.
    """
    random = np.random.default_rng(seed)
    angle, speed = np.pi + random.normal(scale=0.3), 0.0  # hanging down
    pump, hold = random.uniform([0.5, 4.0], [2.5, 14.0])
    # A property of the recording. In a table of episodes, each property is a column.
    rr.send_property("policy", rr.AnyValues(pump=pump, hold=hold))

    total = 0.0
    for step in range(STEPS):
        upright = np.cos(angle) > 0.9
        energy = speed**2 / 2 + 9.81 * np.cos(angle)
        torque = -hold * np.sin(angle) - 3 * speed if upright else pump * np.sign(speed + 1e-6) * (9.81 - energy) / 4
        torque = float(np.clip(torque, -4, 4))
        speed += STEP_SECS * (9.81 * np.sin(angle) + torque - 0.05 * speed)
        angle += STEP_SECS * speed
        reward = float(np.cos(angle))
        total += reward

        tip = np.array([np.sin(angle), -np.cos(angle)])
        rr.set_time("step", sequence=step)
        rr.log("pendulum", rr.LineStrips2D([np.array([(0, 0), tip])], colors=(90, 170, 255), radii=0.03))
        rr.log("pendulum/tip", rr.Points2D([tip], colors=(255, 140, 60), radii=0.09))
        rr.log("action/torque", rr.Scalars(torque))
        rr.log("reward", rr.Scalars(reward))
    return total


def layout() -> rrb.Blueprint:
    """Return a layout that shows the pendulum, and beside it the actions and the rewards."""
    no_legend = rrb.PlotLegend(visible=False)
    charts = rrb.Vertical(
        rrb.TimeSeriesView(origin="action/torque", name="Action: torque", plot_legend=no_legend),
        rrb.TimeSeriesView(origin="reward", name="Reward", plot_legend=no_legend),
    )
    bounds = rrb.VisualBounds2D(x_range=[-1.3, 1.3], y_range=[-1.3, 1.3])
    pendulum = rrb.Spatial2DView(origin="pendulum", name="Pendulum", visual_bounds=bounds)
    return rrb.Blueprint(rrb.Horizontal(pendulum, charts, column_shares=[2, 3]), collapse_panels=True)


def main() -> None:
    """Make all episodes, and print the best one."""
    parser = argparse.ArgumentParser(description="Make a folder of episodes, a Rerun recording each.")
    parser.add_argument("folder", nargs="?", type=Path, default="episodes")
    parser.add_argument("--episodes", type=int, default=16)
    args = parser.parse_args()

    folder = mpr.DirectorySink(args.folder, name="episode-{index:03d}.rrd")
    with mpr.Pool("mpr_episodes", sinks=folder, blueprint=layout()) as pool:
        returns = pool.map(episode, range(args.episodes))
    best = int(np.argmax(returns))
    print(f"episode {best} is the best, with {returns[best]:.0f}; see: rerun {args.folder}/episode-{best:03d}.rrd")


if __name__ == "__main__":
    main()
