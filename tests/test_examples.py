"""Every example runs as its docstring says, and its recording has what it logs. `make_picture.py` draws them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests import support

_FOLDER = Path(__file__).parent.parent / "examples"

# One worker of `pytest -n` runs them all, because each has a pool with as many workers as there are CPUs.
pytestmark = pytest.mark.xdist_group("examples")


def _run(folder: Path, name: str, *arguments: str) -> str:
    """Run an example in `folder`, and return its output. `arguments` make it smaller than by default."""
    command = [sys.executable, str(_FOLDER / f"{name}.py"), *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _needs(*packages: str) -> None:
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"the examples' extra is not installed: {', '.join(missing)}")


def test_episodes(tmp_path: Path) -> None:
    assert "is the best" in _run(tmp_path, "episodes", "here", "--episodes", "3")
    files = sorted((tmp_path / "here").glob("*.rrd"))
    assert {"episode-000.rrd", "episode-001.rrd", "episode-002.rrd"} <= {path.name for path in files}
    for path in files:
        support.check_file(path)
    rows = support.row_counts(tmp_path / "here" / "episode-001.rrd")
    entities = ("/pendulum", "/pendulum/tip", "/action/torque", "/reward")
    assert {(entity, step): 1 for entity in entities for step in range(200)} == rows


def test_point_clouds(tmp_path: Path) -> None:
    _run(tmp_path, "point_clouds", "run.rrd", "--scans", "4")
    support.check_file(tmp_path / "run.rrd")
    scans = {(f"/scanner/{number}{part}", number): 1 for number in range(4) for part in ("", "/points")}
    way = {("/scanner/way", number): 1 for number in range(4)}
    assert scans | way == support.row_counts(tmp_path / "run.rrd", "scan")


def test_robots(tmp_path: Path) -> None:
    _needs("mujoco")
    assert "came furthest" in _run(tmp_path, "robots", "run.rrd", "--robots", "3")
    support.check_file(tmp_path / "run.rrd")
    counts = support.row_counts(tmp_path / "run.rrd", "time")
    names = {f"/robots/{number}{part}" for number in range(3) for part in ("", "/trail")}
    assert names | {f"/distance/{number}" for number in range(3)} == {entity for entity, _ in counts}
    assert len(counts) == 3 * 3 * 160


def test_test_tracker(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio", "--mpr=retain-on-failure",
        f"--rootdir={tmp_path}", f"--mpr-output={tmp_path}/out", str(_FOLDER / "test_tracker.py"),
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
    (path,) = tmp_path.glob("out/*/*.rrd")
    assert path.name in ran.stdout
    support.check_file(path)
    counts = support.row_counts(path, "frame")
    entities = ("/film", "/film/ball", "/film/track", "/distance")
    assert {(entity, frame): 1 for entity in entities for frame in range(60)}.items() <= counts.items()


def test_video(tmp_path: Path) -> None:
    _needs("av")
    _run(tmp_path, "video", "run.rrd", "--clips", "2")
    support.check_file(tmp_path / "run.rrd")
    rows = support.row_counts(tmp_path / "run.rrd", "frame")
    assert {(f"/clips/{n}{part}", frame): 1 for n in range(2) for part in ("", "/boxes") for frame in range(60)} == rows
    assert {"/clips/0", "/clips/1"} == {
        cell.entity for cell in support.cells(tmp_path / "run.rrd") if cell.component == "AssetVideo:blob"
    }


def test_web(tmp_path: Path) -> None:
    _run(tmp_path, "web", "run.rrd", "--pause-secs", "0", "--port", "0")
    support.check_file(tmp_path / "run.rrd")
    names = ("lorenz", "halvorsen", "aizawa", "thomas")
    wanted = {(f"/{name}{part}", step): 1 for name in names for part in ("", "/trails") for step in range(250)}
    assert wanted == support.row_counts(tmp_path / "run.rrd")


def test_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(_FOLDER / "notebook.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "PYTHONPATH": str(_FOLDER.parent)})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("steps on average" in str(output) for output in outputs)
    assert any("rerun_notebook" in str(output) for output in outputs)
    # The bar is a widget too.
    assert "48/48" in str(notebook.metadata["widgets"])
    support.check_file(tmp_path / "notebook.rrd")
    wanted = {(entity, frame): 1 for entity in ("/julia", "/inside") for frame in range(48)}
    assert wanted == support.row_counts(tmp_path / "notebook.rrd", "frame")


def test_every_example_has_a_picture_and_a_test() -> None:
    tested = Path(__file__).read_text()
    scripts = {path.stem for path in _FOLDER.glob("*.py")} - {"make_picture"}
    # `test_engine_pools.py` runs the example of engines, in an environment that has them.
    for name in scripts - {"quickstart", "gradio_app", "live", "engines"}:
        assert f"def test_{name}(" in tested
    assert scripts - {path.stem for path in _FOLDER.glob("*.png")} == set()
