"""Reads the options of the plugin from pytest's command line, its configuration file, and the marker `mpr`.

Covers: declaring and checking the options, and the options that are sent to workers of pytest-xdist.
Does not cover: the effect of an option, for example of the mode (`recording/retention.py`).
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mpr

#: The values of the option `--mpr`, which says which tests are recorded and which recordings are kept.
MODES = ("off", "on", "retain-on-failure", "retain-on-failure-and-retries", "on-first-retry")
#: Fixtures whose tests are recorded in every mode, because the fixtures need a recording.
RECORDED_FIXTURES = frozenset({"mpr_golden", "mpr_pool"})
#: The entities with mpr's rows about a test, with the test's `logging` records, and with the document that says why the
#: test has failed.
ROOT = "pytest"
LOGS = f"{ROOT}/logs"
REPORT = f"{ROOT}/report"
CAPTURES = ("global", "thread")
SCREENSHOTS = ("off", "on", "only-on-failure")
#: The variables by which CI services name a job. The values of all variables in one element name the job together.
JOBS = (
    ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"),  # GitHub, Gitea, Forgejo
    ("CI_JOB_ID",),  # GitLab
    ("SYSTEM_JOBID",),  # Azure
    ("CIRCLE_WORKFLOW_JOB_ID",),
    ("BUILDKITE_JOB_ID",),
    ("BUILD_TAG",),  # Jenkins
    ("BITBUCKET_STEP_UUID",),
    ("CODEBUILD_BUILD_ID",),
    ("APPVEYOR_JOB_ID",),
    ("TRAVIS_JOB_ID",),
    ("DRONE_BUILD_NUMBER", "DRONE_STAGE_NUMBER"),
    ("CI_PIPELINE_NUMBER", "CI_WORKFLOW_NAME"),  # Woodpecker
    ("CIRRUS_TASK_ID",),
    ("TEAMCITY_BUILD_ID",),
    ("SEMAPHORE_JOB_ID",),
)
#: The name of a job of a CI service that does not name its jobs.
UNKNOWN_JOB = "unknown"
_MARKER_ARGUMENTS = ("mode", "capture", "application_id", "name")


def add_options(parser: pytest.Parser) -> None:
    """Declare the options of the plugin for pytest's command line and for its configuration file."""
    group = parser.getgroup("mpr", "a Rerun recording of each test (mpr)")

    def add(option: str, *, help: str, ini: str | None = None, **kwargs: Any) -> None:  # argparse's word
        name = option.removeprefix("--").replace("-", "_")
        group.addoption(option, dest=name, default=None, help=help, **kwargs)
        if ini is not None:
            parser.addini(name, f"{help} (--{name.replace('_', '-')})", default=ini)

    add("--mpr", choices=MODES, ini="off", help="record tests: which recordings are kept; off is the default")
    add("--mpr-output", metavar="DIR", ini="mpr-results", help="folder for recordings, relative to the rootdir")
    add("--mpr-keep-runs", type=int, metavar="N", ini="3", help="runs that are kept in that folder, this one included")
    add(
        "--mpr-summary",
        choices=("failed", "all", "none"),
        ini="failed",
        help="recordings that are named at the end of the run",
    )
    add("--mpr-strict", action="store_true", help="a recording that cannot be made is an error of its test")
    parser.addini("mpr_strict", "--mpr-strict", type="bool", default=False)
    add(
        "--mpr-screenshot",
        choices=SCREENSHOTS,
        ini="off",
        help="pictures of recordings, drawn by the viewer when all tests are done",
    )
    add(
        "--mpr-artifact-url",
        metavar="URL",
        ini="",
        help="where the CI service serves the folder of --mpr-output: the page then opens recordings in the web viewer",
    )
    add(
        "--mpr-serve",
        type=int,
        nargs="?",
        const=0,
        metavar="PORT",
        help="after the run, serve its page and a web viewer on this machine, until Ctrl-C",
    )
    parser.addini("mpr_screenshot_timeout", "seconds that one picture may take", default="30")
    parser.addini("mpr_screenshots_time", "seconds that all pictures of a run may take", default="120")
    add("--mpr-golden-update", action="store_true", help="write golden recordings that are missing or differ anew")
    add(
        "--mpr-golden-fail-if-missing",
        action="store_true",
        help="a test without its golden recording fails, and does not write it; so by default where CI is set",
    )
    parser.addini("mpr_golden_fail_if_missing", "--mpr-golden-fail-if-missing", default="")
    parser.addini(
        "mpr_capture", "what plain rr.log of a test means: global, or thread for its own thread only", default="global"
    )
    parser.addini("mpr_application_id", "application id of recordings; by default the name of the rootdir", default="")
    parser.addini("mpr_flush_timeout", "seconds that the end of a phase waits for the disk", default="5")
    parser.addini("mpr_min_free_space", "MB that must be free on the disk, or nothing is recorded", default="500")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Holds the options of a run, which is one call of pytest.

    Attributes
    ----------
    mode:
        The mode, one of `MODES`. It says which tests are recorded, and which recordings are kept.
    output:
        The folder that has a folder for each run.
    run:
        The name of this run's folder in `output`.
    keep_runs:
        The number of runs that are kept in `output`, this one included.
    summary:
        The recordings that pytest names at the end of the run: "failed", "all" or "none".
    strict:
        If true, the teardown of a test fails if mpr cannot record the test, or has an error while it records the test.
    capture:
        The threads in which plain `rr.log` is recorded. "global": all threads that have no recording of their own.
        "thread": only the thread of the test.
    application_id:
        The application id of the recordings of tests whose markers name none.
    flush_timeout_secs:
        The longest time in seconds that the end of a phase (setup, call, teardown) waits for the disk.
    min_free_bytes:
        The number of bytes that must be free on the disk. If there are fewer, a test is not recorded.
    names_worker:
        True if the file names of recordings contain the worker's name. This is so with `--dist each` of pytest-xdist,
        because each worker then runs every test.
    screenshot:
        The recordings that get a picture: one of `SCREENSHOTS`.
    screenshot_timeout_secs, screenshots_secs:
        The longest time in seconds for one picture, and for all pictures of a run.
    screenshot_updates:
        If true, a golden recording that is replaced gets two pictures, one of the old rows and one of the new rows.
        False if the command line has `--mpr-screenshot=off`.
    artifact_url:
        The URL at which the folder `output` will be served; empty if there is none.
    serve_port:
        The port at which the page is served after the run; 0 for a free port, None for no server.
    job:
        A text that identifies the CI job that runs pytest: `UNKNOWN_JOB` if the CI service does not name the job, None
        without a CI service.
    golden_update:
        If true, golden recordings that are missing or differ are written.
    golden_fail_if_missing:
        If true, a test without its golden recording fails, unless `golden_update` is true.
    pid:
        The id of the process in which pytest was started.
    version:
        The version of mpr.
    """

    mode: str
    output: Path
    run: str
    keep_runs: int
    summary: str
    strict: bool
    capture: str
    application_id: str
    flush_timeout_secs: float
    min_free_bytes: int
    names_worker: bool
    screenshot: str
    screenshot_timeout_secs: float
    screenshots_secs: float
    screenshot_updates: bool
    artifact_url: str
    serve_port: int | None
    job: str | None
    golden_update: bool
    golden_fail_if_missing: bool
    pid: int
    version: str

    @property
    def folder(self) -> Path:
        """The path of this run's folder."""
        return self.output / self.run


def value(config: pytest.Config, name: str) -> Any:
    """Return the value of the option `name`: from the command line, else the configuration file, else its default."""
    given = config.getoption(name, None)
    return config.getini(name) if given is None else given


def settings_of(config: pytest.Config, run: str) -> Settings:
    """Return the settings of the run with the name `run`, from the configuration `config` of pytest.

    A worker of pytest-xdist ignores `run`, and uses the name that it got from the process in which pytest was started.
    Raises `pytest.UsageError` if an option has a value that cannot be used.
    """
    given = getattr(config, "workerinput", {}).get("mpr")
    if given is not None:
        run = given["run"]
    output = given["output"] if given is not None else os.path.join(config.rootpath, value(config, "mpr_output"))
    return Settings(
        mode=_one_of("mpr", value(config, "mpr"), MODES),
        output=Path(output),
        run=run,
        keep_runs=int(_number("mpr_keep_runs", value(config, "mpr_keep_runs"), 1)),
        summary=_one_of("mpr_summary", value(config, "mpr_summary"), ("failed", "all", "none")),
        strict=bool(value(config, "mpr_strict")),
        capture=_one_of("mpr_capture", config.getini("mpr_capture"), CAPTURES),
        application_id=checked_application_id(config.getini("mpr_application_id") or _named_like(config.rootpath.name)),
        flush_timeout_secs=_number("mpr_flush_timeout", config.getini("mpr_flush_timeout"), 0.001),
        min_free_bytes=int(_number("mpr_min_free_space", config.getini("mpr_min_free_space"), 0) * 1e6),
        screenshot=_one_of("mpr_screenshot", value(config, "mpr_screenshot"), SCREENSHOTS),
        screenshot_timeout_secs=_number("mpr_screenshot_timeout", config.getini("mpr_screenshot_timeout"), 0.001),
        screenshots_secs=_number("mpr_screenshots_time", config.getini("mpr_screenshots_time"), 0),
        screenshot_updates=config.getoption("mpr_screenshot") != "off",
        artifact_url=str(value(config, "mpr_artifact_url")).rstrip("/"),
        serve_port=config.getoption("mpr_serve"),
        job=_job(),
        golden_update=bool(config.getoption("mpr_golden_update")),
        golden_fail_if_missing=_fails_if_missing(config),
        pid=given["pid"] if given is not None else os.getpid(),
        version=mpr.__version__,
        names_worker=given["names_worker"] if given is not None else config.getoption("dist", "no") == "each",
    )


def _job() -> str | None:
    for names in JOBS:
        values = [os.environ.get(name) for name in names]
        if all(values):
            return f"{names[0]} {' '.join(map(str, values))}"
    return UNKNOWN_JOB if os.environ.get("CI") else None


def _fails_if_missing(config: pytest.Config) -> bool:
    given = str(value(config, "mpr_golden_fail_if_missing")).lower()
    if given == "":
        return bool(os.environ.get("CI"))
    return _one_of("mpr_golden_fail_if_missing", given, ("true", "false")) == "true"


def for_worker(settings: Settings) -> dict[str, Any]:
    """Return a dict with the settings that a worker of pytest-xdist cannot read from its own configuration.

    pytest-xdist sends the dict to the worker as a part of `workerinput`.
    """
    return {
        "output": str(settings.output),
        "run": settings.run,
        "names_worker": settings.names_worker,
        "pid": settings.pid,
    }


def _named_like(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9 _\-\[\]:]+", "-", name).strip("-")[:180] or "pytest"


def _one_of(name: str, given: Any, allowed: tuple[str, ...]) -> str:
    if given not in allowed:
        raise pytest.UsageError(f"mpr: {name} = {given!r} is none of: {', '.join(allowed)}")
    return str(given)


def _number(name: str, given: Any, least: float) -> float:
    try:
        number = float(given)
    except ValueError:
        number = least - 1
    if not least <= number < float("inf"):
        raise pytest.UsageError(f"mpr: {name} = {given!r} is no number >= {least:g}")
    return number


@functools.cache  # a test that runs must not see the import again
def checked_application_id(given: str) -> str:
    """Return `given` unchanged. Raises `pytest.UsageError` if `given` cannot be used as an application id."""
    from mpr.recording import options

    try:
        return options.check_application_id(given)
    except (ValueError, TypeError) as error:
        raise pytest.UsageError(f"mpr: {error}") from None


# --- the marker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TestOptions:
    """Holds the options of one test.

    Each option is taken from the closest marker `@pytest.mark.mpr(...)` that has it: of the test, its class, or its
    module. If no marker has `mode`, `capture` or `application_id`, this option is taken from `Settings`, and has the
    same meaning there. `name` is the name of the recording; None if no marker has a name.
    """

    mode: str
    capture: str
    application_id: str
    name: str | None = None


def test_options(item: pytest.Item, settings: Settings) -> TestOptions:
    """Return the options of the test `item`, from its markers and from `settings`, the options of the run.

    Raises `pytest.UsageError` if a marker has a wrong argument.
    """
    found: dict[str, Any] = {}
    for marker in item.iter_markers("mpr"):
        _check_marker(item, marker)
        found = {**marker.kwargs, **found}
    return TestOptions(
        mode=found.get("mode", settings.mode),
        capture=found.get("capture", settings.capture),
        application_id=found.get("application_id", settings.application_id),
        name=found.get("name"),
    )


def _check_marker(item: pytest.Item, marker: pytest.Mark) -> None:
    where = f"@pytest.mark.mpr of {item.nodeid}"
    if marker.args:
        raise pytest.UsageError(f"{where} takes keyword arguments only: {', '.join(_MARKER_ARGUMENTS)}")
    for name, given in marker.kwargs.items():
        allowed = {"mode": MODES, "capture": CAPTURES}.get(name)
        if name not in _MARKER_ARGUMENTS:
            raise pytest.UsageError(f"{where} has no argument {name!r}; there are: {', '.join(_MARKER_ARGUMENTS)}")
        if allowed is not None and given not in allowed:
            raise pytest.UsageError(f"{where}: {name}={given!r} is none of: {', '.join(allowed)}")
        if not isinstance(given, str) or not given:
            raise pytest.UsageError(f"{where}: {name} must be a str that is not empty, got {given!r}")
        if name == "application_id":
            checked_application_id(given)
