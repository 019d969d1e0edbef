"""Simulate many robots at once: each task simulates one quadruped with its own gait, and all are in one recording.

MuJoCo computes the physics. The function `walk` simulates one robot. It knows nothing of the other robots or of mpr.
All robots share one timeline and one scene, so you see at a glance which gait goes furthest.

    pip install mujoco
    python robots.py
    rerun robots.rrd
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

import mpr

LANE = 0.9  # metres between two robots
SECS = 8.0  # of simulated time
FRAMES_PER_SEC = 20

LEG = """
<body pos="{x} {y} 0">
  <joint name="hip{i}" axis="0 1 0" range="-60 60"/>
  <geom fromto="0 0 0 0 0 -.1" size=".025"/>
  <body pos="0 0 -.1">
    <joint name="knee{i}" axis="0 1 0" range="-80 80"/>
    <geom fromto="0 0 0 0 0 -.1" size=".025" friction="1.5"/>
  </body>
</body>"""

ROBOT = """
<mujoco>
  <option timestep=".004"/>
  <default>
    <joint damping=".6" armature=".01"/><geom type="capsule" density="300"/><position kp="15" ctrlrange="-1.2 1.2"/>
  </default>
  <worldbody>
    <geom type="plane" size="50 50 1"/>
    <body pos="0 0 .26"><freejoint/>
      <geom fromto="-.2 0 0 .2 0 0" size=".05"/>{legs}
    </body>
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>"""


def robot() -> Any:
    """Return the model of a robot (`mujoco.MjModel`): a low body with four legs of two links each."""
    places = [(0.2, 0.26), (0.2, -0.26), (-0.2, 0.26), (-0.2, -0.26)]
    legs = "".join(LEG.format(i=i, x=x, y=y) for i, (x, y) in enumerate(places))
    motors = "".join(f'<position joint="hip{i}"/><position joint="knee{i}"/>' for i in range(4))
    return mujoco.MjModel.from_xml_string(ROBOT.format(legs=legs, motors=motors))


def walk(index: int, color: tuple[int, int, int]) -> float:
    """Let the robot with this `index` walk with a random gait, and log its moves. Runs in a worker.

    Returns how far it came, in metres.
    """
    model = robot()
    data = mujoco.MjData(model)
    random = np.random.default_rng(index)
    frequency, stride, lift = random.uniform([1.0, 0.2, 0.2], [2.8, 0.6, 0.6])
    phases = np.array([0, np.pi, np.pi, 0]) + random.normal(scale=0.3, size=4)

    limbs = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)
    radii, lengths = model.geom_size[limbs, 0], 2 * model.geom_size[limbs, 1]
    shift = np.array([0.0, LANE * index, 0.0])
    trail = []
    for frame in range(int(SECS * FRAMES_PER_SEC)):
        while data.time < frame / FRAMES_PER_SEC:
            swing = 2 * np.pi * frequency * data.time + phases
            data.ctrl[0::2] = stride * np.sin(swing) - 0.3
            data.ctrl[1::2] = 0.6 - lift * np.maximum(0, np.cos(swing))
            mujoco.mj_step(model, data)
        rotations = np.zeros((len(limbs), 4))
        for rotation, limb in zip(rotations, limbs, strict=True):
            mujoco.mju_mat2Quat(rotation, data.geom_xmat[limb])
        # A capsule of MuJoCo has its middle at the origin; a capsule of Rerun has its lower end there.
        axes = data.geom_xmat[limbs].reshape(-1, 3, 3)[:, :, 2]
        places = data.geom_xpos[limbs] - axes * lengths[:, None] / 2 + shift
        trail.append(data.qpos[:3] + shift)

        rr.set_time("time", duration=frame / FRAMES_PER_SEC)
        rr.log(
            f"robots/{index}",
            rr.Capsules3D(
                lengths=lengths,
                radii=radii,
                translations=places,
                quaternions=rotations[:, [1, 2, 3, 0]],  # Rerun has the real part last
                colors=color,
                fill_mode="solid",
            ),
        )
        rr.log(f"robots/{index}/trail", rr.LineStrips3D([trail], colors=color, radii=0.01))
        rr.log(f"distance/{index}", rr.Scalars(data.qpos[0]))
    return float(data.qpos[0])


def rainbow(count: int) -> list[tuple[int, int, int]]:
    """Return `count` different colours as (red, green, blue), from 0 to 255."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None] + [0, 2.1, 4.2]
    return [tuple(color) for color in (140 + 110 * np.cos(angles)).astype(int).tolist()]


def layout(count: int) -> rrb.Blueprint:
    """Return a layout that shows the scene of `count` robots from behind, and a chart of the metres walked."""
    centre = np.array([0.8, LANE * (count - 1) / 2 - 1.0, 0.0])
    eye = rrb.EyeControls3D(position=centre + np.array([4.5, -6.5, 3.6]), look_target=centre, eye_up=(0, 0, 1))
    scene = rrb.Spatial3DView(origin="robots", name="A gait for each robot", eye_controls=eye)
    race = rrb.TimeSeriesView(origin="distance", name="Metres walked", plot_legend=rrb.PlotLegend(visible=False))
    panel = rrb.TimePanel(state="collapsed", timeline="time")
    return rrb.Blueprint(rrb.Vertical(scene, race, row_shares=[3, 1]), panel, collapse_panels=True)


def main() -> None:
    """Let all robots walk, and print which one came furthest."""
    parser = argparse.ArgumentParser(description="Simulate many robots into one Rerun recording.")
    parser.add_argument("path", nargs="?", type=Path, default="robots.rrd", help="the recording to write")
    parser.add_argument("--robots", type=int, default=12)
    args = parser.parse_args()

    # The viewer shows the timeline `time` of the robots. The pool has no rows about its workers on this timeline. So
    # the views with these rows are folded (`telemetry_view=False`).
    blueprint = layout(args.robots)
    with mpr.Pool("mpr_robots", sinks=args.path, blueprint=blueprint, telemetry_view=False) as pool:
        distances = pool.starmap(walk, enumerate(rainbow(args.robots)))
    print(f"robot {int(np.argmax(distances))} came furthest: {max(distances):.1f} m; see: rerun {args.path}")


if __name__ == "__main__":
    main()
