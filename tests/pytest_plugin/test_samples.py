"""A run over `samples/` leaves the right names, phases and outcomes, also of tests that use the SDK in unusual ways."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests import support
from tests.pytest_plugin.inner import Run

# Characters that artifact stores refuse, or that have a meaning for a shell or a file system.
_REFUSED = re.compile(r'["\':<>|*?\r\n\\/\s$`]')


def _phases(run: Run, nodeid: str) -> list[str]:
    return run.texts(nodeid, "phase")


@pytest.mark.edge(5, 7, 8, 23, 29, 30, 31, 32, 33, 34, 39, 55)
def test_outcomes_are_the_same_as_without_the_plugin(recorded: Run, unrecorded: Run) -> None:
    assert unrecorded.reports == recorded.reports
    assert len(recorded.reports) > 200
    assert unrecorded.code == recorded.code
    assert unrecorded.masked() == recorded.masked()
    assert unrecorded.stderr == recorded.stderr
    assert not unrecorded.output.exists()


@pytest.mark.edge(13, 58)
def test_outcomes_and_names_are_the_same_in_workers(recorded: Run, failures: Run) -> None:
    assert recorded.failed() == failures.failed()
    assert {each[0] for each in recorded.reports} == {each[0] for each in failures.reports}
    names = {Path(each["path"]).name for each in recorded.manifest["tests"]}
    assert {path.name for path in failures.files()} <= names


def test_all_files_are_valid(recorded: Run) -> None:
    recorded.check_files()
    assert {each["nodeid"] for each in recorded.manifest["tests"]} == {each[0] for each in recorded.reports}
    assert all(each["path"] for each in recorded.manifest["tests"])


@pytest.mark.edge(1, 2, 3)
def test_names(recorded: Run) -> None:
    names = [path.name for path in recorded.files()]
    assert len(recorded.manifest["tests"]) == len(names) == len({name.lower() for name in names})
    for name in names:
        assert not _REFUSED.search(name)
        assert name.isascii()
        assert len(name) <= 130
        assert not name.startswith(("-", "."))
    for twin in ("test_same", "TestOne::test_same", "TestTwo::test_same"):
        for folder in ("a", "b"):
            suffix = {"test_same": "", "TestOne::test_same": " one", "TestTwo::test_same": " two"}[twin]
            (cell,) = recorded.cells(f"twin_{folder}/test_twin.py::{twin}")
            assert cell.value == f"['{folder}{suffix}']"


@pytest.mark.edge(4, 5, 6)
def test_errors_before_and_after(recorded: Run) -> None:
    nodeid = "test_phases.py::test_setup_error"
    assert "failed" == recorded.test(nodeid)["outcome"]
    assert ["setup", "teardown"] == _phases(recorded, nodeid)
    assert ["before", "module setup"] == sorted(cell.value.strip("[']") for cell in recorded.cells(nodeid))
    nodeid = "test_phases.py::test_teardown_error"
    assert "failed" == recorded.test(nodeid)["outcome"]
    assert ["setup", "call", "teardown"] == _phases(recorded, nodeid)
    (text,) = recorded.texts(nodeid, "failure")
    assert text.startswith("teardown failed\n")
    assert "the fixture breaks afterwards" in text
    both = recorded.texts("test_phases.py::test_both_fail", "failure")
    assert ["call failed", "teardown failed"] == [text.splitlines()[0] for text in both]
    assert "the answer is another one" in both[0]
    assert ">       assert number == 42" in both[0]
    assert "the fixture breaks afterwards" in both[1]


@pytest.mark.edge(7, 8, 9)
def test_only_recordings_of_failing_tests_are_kept(failures: Run) -> None:
    kept = {each.removesuffix(" 0") for each in failures.kept()}
    wanted = {
        "test_setup_error", "test_teardown_error", "test_both_fail", "test_strict_xpass", "test_b", "test_subtests",
        "breaks", "some_doctests.breaks",
    }  # fmt: skip
    if not hasattr(pytest, "Subtests"):
        wanted.remove("test_subtests")
    assert wanted == kept
    failures.check_files()
    outcomes = {each["outcome"] for each in failures.manifest["tests"]}
    assert {"passed", "failed", "skipped"} == outcomes


@pytest.mark.edge(12)
def test_the_setup_of_a_module_is_with_all_its_tests_and_the_teardown_with_the_last(recorded: Run) -> None:
    first = [cell.value for cell in recorded.cells("test_phases.py::test_first") if cell.entity == "/said"]
    assert {"['module setup']", "['setup']", "['call']", "['teardown']"} == set(first)
    last = [cell.value for cell in recorded.cells("test_phases.py::test_last")]
    assert {"['module setup']", "['last']", "['module teardown']"} == set(last)
    # The same holds for a unittest class.
    a = [cell.value for cell in recorded.cells("test_phases.py::TestUnittest::test_a")]
    b = [cell.value for cell in recorded.cells("test_phases.py::TestUnittest::test_b")]
    assert ["['a']", "['class setup']", "['module setup']"] == a
    assert ["['class setup']", "['class teardown']", "['module setup']"] == b


@pytest.mark.edge(10, 11)
def test_other_sorts_of_items(recorded: Run) -> None:
    assert {"/yaml"} == recorded.entities("test_items.yaml::works")
    assert ["call failed\nyaml says: this line of the file is wrong"] == recorded.texts(
        "test_items.yaml::breaks", "failure"
    )
    assert {"/doctest"} == recorded.entities("some_doctests.py::some_doctests.logs")


def test_output_logging_and_properties_of_a_test_are_in_its_recording(recorded: Run) -> None:
    nodeid = "test_phases.py::test_first"
    assert ["printed"] == recorded.texts(nodeid, "output/stdout")
    assert ["complained"] == recorded.texts(nodeid, "output/stderr")
    assert ["logged 7"] == recorded.texts(nodeid, "logs/lib/part")
    (caught,) = recorded.texts(nodeid, "logs/lib")
    assert caught.startswith("caught\nTraceback")
    assert caught.endswith("ZeroDivisionError: division by zero")
    properties = {
        cell.component: cell.value
        for cell in support.cells(recorded.path(nodeid), properties=True)
        if cell.entity == "/__properties/pytest"
    }
    assert {"nodeid": f"['{nodeid}']", "attempt": "[0]", "worker": "['main']", "outcome": "['passed']"} == properties


def test_times_end_with_their_test(recorded: Run) -> None:
    times = {cell.times for cell in recorded.cells("test_phases.py::test_time_of_another_test_is_forgotten")}
    assert {()} == times


@pytest.mark.edge(29, 30)
def test_recordings_that_tests_make_themselves(recorded: Run) -> None:
    users = "test_users.py::"
    logged = {
        "test_init": {"/in_init"},
        # The recording of an earlier test is still current; its rows are not copied twice.
        "test_what_is_left_of_init": {"/after_init"},
        "test_init_and_late_save": {"/early", "/late"},
        "TestFixtureWithSink::test_a": {"/a"},
        "TestFixtureWithSink::test_b": {"/b"},
        "TestFixtureThatSavesAtLast::test_a": {"/a"},
        "TestFixtureThatSavesAtLast::test_b": {"/b"},
        "test_memory_recording": {"/m"},
        "test_set_sinks": {"/s"},
        "test_own_stream": {"/o"},
    }
    assert logged == {name: recorded.entities(users + name) for name in logged}
    for name in logged:
        assert [] == recorded.texts(users + name, "notes")
        assert recorded.test(users + name)["complete"] is True


@pytest.mark.edge(31, 32, 33, 39)
def test_threads_coroutines_forks_and_the_environment(recorded: Run) -> None:
    users = "test_users.py::"
    assert {"/thread"} == recorded.entities(users + "test_threads")
    assert "/late_thread" in recorded.entities(users + "test_late_thread")
    assert {"/coroutine", "/to_thread/0", "/to_thread/1"} == recorded.entities(users + "test_asyncio")
    for backend in ("asyncio", "trio"):
        found = recorded.cells(f"{users}test_anyio[{backend}]")
        assert ["/anyio", "/async_fixture", "/async_fixture"] == [cell.entity for cell in found]
    # A forked child is another process: it has no part in the recording, and does not harm it.
    assert set() == recorded.entities(users + "test_fork")
    assert [] == recorded.texts(users + "test_fork", "logs/child")
    assert {"/elsewhere"} == recorded.entities(users + "test_chdir")
    assert {"/no_environment"} == recorded.entities(users + "test_environment")
    assert {"/environment"} == recorded.entities(users + "test_environment_is_really_gone")


@pytest.mark.edge(46)
def test_junit_has_one_property_per_test(recorded: Run) -> None:
    cases = ElementTree.parse(recorded.folder / "junit.xml").findall(".//testcase")
    assert len(cases) > 70
    for case in cases:
        (found,) = case.findall("properties/property[@name='mpr_recording']")
        assert (recorded.folder / found.attrib["value"]).is_file()
        assert not Path(found.attrib["value"]).is_absolute()
