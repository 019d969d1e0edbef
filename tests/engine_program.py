"""A program that runs the check of the matrix with one member: `python -m tests.engine_program MEMBER FOLDER`.

For engines whose workers are threads of the program, for those that start the program themselves, such as MPI, and for
Ray Data, whose processes stay until Ray is shut down.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mpr
from tests import engine_members, functions, guests, support
from tests.test_engine_matrix import check


def _use_a_pool(folder: Path) -> None:
    """Let MPI run the tasks of a pool."""
    from mpi4py.futures import MPIPoolExecutor

    path = folder / "pool.rrd"
    with MPIPoolExecutor(1) as executor, mpr.Pool("app", engine=executor, sinks=path) as pool:
        assert pool.map(functions.log_number, range(8), chunksize=2) == list(range(8))
    support.check_file(path)
    assert sorted(support.numbers(path)) == list(range(8))


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    members = {
        "threads": engine_members.threads,
        "joblib-threading": lambda: engine_members.joblib("threading"),
        "mpi": engine_members.mpi,
        "ray-data": lambda: engine_members.ray_data(engine_members.RayData),
        "ray-data-actors": lambda: engine_members.ray_data(engine_members.RayDataActors),
    }
    with members[name]() as member:
        assert member.run([guests.current]) == [(None, None)]
        check(member, folder, in_parent="thread" in name)
    if name == "mpi":
        _use_a_pool(folder)
    print("checked")


if __name__ == "__main__":
    main()
