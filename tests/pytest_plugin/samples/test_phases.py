import logging
import sys
import unittest

import pytest
import rerun as rr


def say(text):
    rr.log("said", rr.TextLog(text))


@pytest.fixture
def fixture():
    say("setup")
    yield 1
    say("teardown")


@pytest.fixture
def breaks_before():
    say("before")
    raise ValueError("the fixture breaks")


@pytest.fixture
def breaks_after():
    yield
    say("after")
    raise ValueError("the fixture breaks afterwards")


@pytest.fixture(scope="module", autouse=True)
def wide():
    say("module setup")
    yield
    say("module teardown")


def test_first(fixture):
    rr.set_time("step", sequence=5)
    say("call")
    print("printed")
    print("complained", file=sys.stderr)
    logging.getLogger("lib.part").warning("logged %d", 7)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("lib").exception("caught")


def test_time_of_another_test_is_forgotten(fixture):
    say("call")


def test_setup_error(breaks_before):
    pass


def test_teardown_error(breaks_after):
    pass


def test_both_fail(breaks_after):
    number = 41
    assert number == 42, "the answer is another one"


@pytest.mark.skip(reason="marked")
def test_skip_marker():
    pass


@pytest.fixture
def skips():
    pytest.skip("in a fixture")


def test_skip_fixture(skips):
    pass


def test_skip_body():
    say("then")
    pytest.skip("in the body")


@pytest.mark.xfail(reason="known", strict=False)
def test_xfail_marker():
    assert False


def test_xfail_imperative():
    pytest.xfail("known")


@pytest.mark.xfail(reason="known", strict=False)
def test_xpass():
    pass


@pytest.mark.xfail(reason="known", strict=True)
def test_strict_xpass():
    pass


class TestUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        say("class setup")

    @classmethod
    def tearDownClass(cls):
        say("class teardown")

    def test_a(self):
        say("a")

    def test_b(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)


if hasattr(pytest, "Subtests"):

    def test_subtests(subtests):
        for number in range(3):
            with subtests.test(number=number):
                assert number != 1


def test_last():
    say("last")
