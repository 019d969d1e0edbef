"""No two workers draw the same random numbers, with each start method. A seed keeps its meaning."""

from __future__ import annotations

import gc
import hashlib
import importlib
import importlib.util
import os
import pickle
import random
import secrets
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpr
from mpr.processes import random_state
from tests import support, tasks

_OURS = {"PYTHONPATH": str(Path(__file__).parents[1])}


def _numbers() -> dict[str, Any]:
    """Draw a number from everything that a program may draw from without a seed."""
    return {
        "numpy.random": np.random.rand(),
        "numpy.random, normal": np.random.randn(),
        "default_rng": np.random.default_rng().random(),
        "random": random.random(),
        "Random()": random.Random().random(),
        "secrets": secrets.token_hex(),
        "uuid1": uuid.uuid1().hex,
        "uuid4": uuid.uuid4().hex,
        "tempfile": next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]  # the names of all its files
    }


def _draw_after_meeting(place: Path, count: int) -> tuple[int, dict[str, Any]]:
    return tasks.pid_after_meeting(place, count), _numbers()


def _draw_from_all(pool: Any, place: Path, count: int = 3) -> dict[int, dict[str, Any]]:
    """Return what each of `count` workers draws, by the pid of the worker."""
    return dict(pool.starmap(_draw_after_meeting, [(place, count)] * count, 1))


def _equal(drawn: list[dict[str, Any]]) -> list[str]:
    """Return the sources from which two of the processes have drawn the same number."""
    return [source for source in drawn[0] if len({each[source] for each in drawn}) < len(drawn)]


def test_all_workers_and_replacements_of_several_pools_draw_different_numbers(
    start_method: Any, tmp_path: Path
) -> None:
    # The fork server has numpy's generator if it has pandas.
    assert importlib.util.find_spec("pandas") is not None
    drawn = [_numbers()]
    for number in range(2):
        with mpr.Pool("app", 3, sinks=tmp_path / f"{number}.rrd", start_method=start_method) as pool:
            first = _draw_from_all(pool, tmp_path / f"first-{number}")
            for _ in range(3):
                with pytest.raises(mpr.WorkerDiedError):
                    pool.apply(os._exit, (1,))
            later = _draw_from_all(pool, tmp_path / f"later-{number}")
            assert first.keys() != later.keys()
        drawn += [*first.values(), *(later[pid] for pid in later.keys() - first.keys())]
    assert len(drawn) > 1 + 2 * 3
    assert [] == _equal(drawn)


def _generators() -> dict[str, set[str]]:
    """Return digests of the states of all generators in this process, by the kind of the generator."""
    found: dict[str, set[str]] = {}
    # Numpy imports this module when it is used first.
    importlib.import_module("numpy.random")
    gc.unfreeze()
    for each in gc.get_objects():
        if isinstance(each, random.Random) and not isinstance(each, random.SystemRandom):
            state = each.getstate()
        elif isinstance(each, np.random.RandomState):
            state = each.get_state(legacy=False)
        elif isinstance(each, np.random.BitGenerator):
            state = each.state
        else:
            continue
        found.setdefault(type(each).__name__, set()).add(hashlib.sha256(pickle.dumps(state)).hexdigest())
    return found


def _generators_after_meeting(place: Path, count: int) -> dict[str, set[str]]:
    # The states are read first, because `pid_after_meeting` logs.
    found = _generators()
    tasks.pid_after_meeting(place, count)
    return found


@pytest.mark.parametrize("preload", [True, False])
def test_workers_of_a_fork_server_share_the_state_of_no_generator(preload: bool, tmp_path: Path) -> None:
    with mpr.Pool("app", 2, sinks=tmp_path / "run.rrd", start_method="forkserver", preload=preload) as pool:
        one, two = pool.starmap(_generators_after_meeting, [(tmp_path / "here", 2)] * 2, 1)
    assert {"Random", "RandomState", "MT19937"} <= one.keys()
    assert one.keys() == two.keys()
    for kind in one:
        assert set() == one[kind] & two[kind], kind


_SEEDED = """
import sys
from pathlib import Path
import numpy as np
import mpr
from tests.test_random_state import _draw_from_all

if __name__ == "__main__":
    np.random.seed(7)
    drawn = []
    for number in range(2):
        with mpr.Pool("app", 3, sinks=f"{sys.argv[1]}/{number}.rrd", start_method="fork") as pool:
            workers = _draw_from_all(pool, Path(sys.argv[1]) / f"here-{number}")
        drawn += [each["numpy.random"] for each in workers.values()]
    print(sorted(drawn), np.random.rand())
"""


def test_a_seed_before_a_fork_gives_different_workers_and_the_same_run_again(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = support.run_python(_SEEDED, tmp_path / name, env=_OURS)
        assert (0, "") == (done.returncode, done.stderr)
        runs.append(done.stdout)
    assert runs[0] == runs[1]
    *drawn, parents = [float(each.strip("[],")) for each in runs[0].split()]
    assert 6 == len(set(drawn))
    # The parent goes on as if there were no pool.
    assert np.random.RandomState(7).rand() == parents


_SEEDED_BY_MAIN = """
import sys
from pathlib import Path
import numpy as np
import mpr
from tests.test_random_state import _draw_from_all

np.random.seed(7)

if __name__ == "__main__":
    with mpr.Pool("app", 2, sinks=f"{sys.argv[1]}/run.rrd") as pool:
        workers = _draw_from_all(pool, Path(sys.argv[1]) / "here", 2)
    print(*(each["numpy.random"] for each in workers.values()))
"""


def test_a_seed_that_the_main_script_sets_on_import_stays_set(tmp_path: Path) -> None:
    done = support.run_python(_SEEDED_BY_MAIN, tmp_path, env=_OURS)
    assert (0, "") == (done.returncode, done.stderr)
    assert [np.random.RandomState(7).rand()] * 2 == [float(each) for each in done.stdout.split()]


def _draw_in_a_child() -> float:
    """Return what a child draws that this task forks, after a seed in the task."""
    np.random.seed(7)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, np.random.rand().hex().encode())
        os._exit(0)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    with open(reader) as pipe:
        return float.fromhex(pipe.read())


def test_a_child_that_a_task_forks_has_the_numbers_of_its_task(start_method: Any, tmp_path: Path) -> None:
    with mpr.Pool("app", 1, sinks=tmp_path / "run.rrd", start_method=start_method) as pool:
        assert np.random.RandomState(7).rand() == pool.apply(_draw_in_a_child)


_OTHER_GENERATOR = """
import numpy as np
from mpr.processes import random_state

np.random.set_bit_generator(np.random.PCG64(3))
before = np.random.get_state(legacy=False)
drawn = []
for place in ((0, 1), (0, 2), (0, 1)):
    np.random.set_state(before)
    random_state.derive(*place)
    drawn.append((np.random.rand(), np.random.get_state(legacy=False)["bit_generator"]))
assert drawn[0] == drawn[2] != drawn[1], drawn
assert drawn[0][1] == "PCG64", drawn
"""


def test_another_kind_of_generator_is_derived_too() -> None:
    done = support.run_python(_OTHER_GENERATOR, env=_OURS)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_a_process_without_numpys_generator_does_not_import_it() -> None:
    source = "import sys; from mpr.processes import random_state; random_state.derive(1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, env=_OURS)
    assert random_state.__name__ in done.stdout.split()
    assert not [each for each in done.stdout.split() if each.startswith("numpy")]
