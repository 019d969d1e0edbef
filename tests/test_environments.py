"""The tests hold in odd environments: each runs some of them in another pytest, under one oddity or under all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A little of everything that depends on the environment: Ctrl-C, files and their modes, viewers, programs, texts.
_TESTS = (
    "tests/test_promise.py::test_every_row_of_every_worker_is_in_one_valid_file",
    "tests/test_ends.py::test_ctrl_c_ends_all_and_leaves_a_valid_file",
    "tests/test_interrupts.py::test_an_interrupted_call_leaves_a_pool_that_works_and_ends",
    "tests/test_joining.py::test_subprocesses_join_by_their_environment",
    "tests/test_joined_ends.py::test_rows_arrive_however_a_process_ends",
    "tests/test_live.py::test_every_sink_has_the_rows_of_every_worker",
    "tests/test_recover.py",
    "tests/test_capture.py",
    "tests/test_progress.py",
    "tests/test_comparison.py::test_the_command_says_what_differs",
    "tests/test_run.py",
)
_DEAD = "http://127.0.0.1:9"
# A command of the shell before pytest, and changes of the environment (None: without the variable).
_ODD: dict[str, tuple[str, dict[str, str | None]]] = {
    "umask 077": ("umask 077", {}),
    "umask 0": ("umask 0", {}),
    "interrupts are ignored": ("trap '' INT", {}),
    "locale": ("", {"LC_ALL": "C", "LANG": None}),
    "dumb terminal": ("", {"TERM": "dumb"}),
    "no terminal": ("", {"TERM": None}),
    "a proxy": ("", dict.fromkeys(("http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "all_proxy"), _DEAD)),
    "no home": ("", {"HOME": None}),
    "a home that cannot be written": ("", {"HOME": "/proc/1"}),
}
_ALL = (
    "umask 077; trap '' INT",
    {name: value for each in ("locale", "dumb terminal", "a proxy", "a home that cannot be written")
     for name, value in _ODD[each][1].items()},
)  # fmt: skip


def _run(command: str, changes: dict[str, str | None], *tests: str, options: tuple[str, ...] = ()) -> None:
    environ = {name: value for name, value in {**os.environ, **changes}.items() if value is not None}
    # The plugin of xdist would take these for its own.
    for name in [name for name in environ if name.startswith(("PYTEST_", "MPR_"))]:
        del environ[name]
    arguments = ["-q", "-p", "no:cacheprovider", "-m", "not slow", *options, *tests]
    ran = subprocess.run(
        ["sh", "-c", f'{command or ":"}; exec "$@"', "sh", sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]


@pytest.mark.timeout(600)
def test_some_tests_hold_under_all_oddities_at_once() -> None:
    _run(*_ALL, *_TESTS[:6], options=("-k", "not spawn and not forkserver and not messages"))


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("odd", _ODD)
def test_more_tests_hold_under_each_oddity(odd: str) -> None:
    _run(*_ODD[odd], *_TESTS, options=("-k", "not spawn and not forkserver"))
