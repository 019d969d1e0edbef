"""The digest of a call is the same in every process, and differs if anything in the call differs."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import os
import pathlib
import subprocess
import sys
import threading
import uuid
from typing import Any

import numpy as np
import pytest

from mpr.datasets.digest import NoDigestError, digest_of_call

Point = collections.namedtuple("Point", "x y")


class _Kind(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclasses.dataclass
class _Config:
    lr: float
    layers: Any = None


class _Known:
    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()

    def __mpr_digest__(self) -> str:
        return self.name

    def run(self) -> None: ...


class _Hostile:
    def __mpr_digest__(self) -> str:
        raise RuntimeError("no digest today")


def _function(x: Any) -> None: ...


def _closure(value: Any) -> Any:
    def inner() -> Any:
        return value

    return inner


def _digest(value: Any) -> str:
    return digest_of_call(_function, {"x": value})


# Each pair is equal as far as a digest is concerned.
_EQUAL = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    (0.1, np.float64(0.1)),
    (3, np.int32(3)),
    (True, np.bool_(True)),
    ("a", np.str_("a")),
    (3, np.array(3)),
    (np.zeros((2, 3)), np.zeros((2, 3), order="F")),
    (np.arange(3, dtype="<i4"), np.arange(3, dtype=">i4")),
    (np.arange(6)[::2], np.array([0, 2, 4])),
    (_Config(0.1, [1]), _Config(0.1, [1])),
    (_Known("a"), _Known("a")),
    (_closure(1), _closure(1)),
    ("a" * 2, "aa"),
    (b"a", bytearray(b"a")),
]

# All of them differ.
_DIFFERENT = [
    None, 0, 1, 2**80, -1, 1.0, True, False, "1", b"1", float("nan"), 1j, -0.0, "", b"", (), [], {}, set(), range(1),
    [1], (1,), [1, 2], [[1], 2], [1, [2]], ["12"], ["1", "2"], {"a": 1}, {"a": "1"}, {"b": 1}, {1: "a"}, {1},
    frozenset([2]), _Kind.FAST, _Kind.SLOW, _Config(0.1), _Config(0.2), Point(1, 2), Point(2, 1), (1, 2),
    {"x": 1, "y": 2}, pathlib.PurePosixPath("a"), "a", pathlib.PurePosixPath("b"), uuid.UUID(int=1),
    decimal.Decimal("1.0"), decimal.Decimal("1.00"), datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.time(1),
    np.datetime64("2026-01-02"), np.datetime64("2026-01-03"), np.timedelta64(1, "s"), np.timedelta64(1, "ms"),
    np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.zeros((1, 3)), np.ones(3),
    np.array(["a", "b"]), np.array([1, "a"], object), np.array([b"a"]), np.zeros(0),
    _function, _closure(1), _closure(2), functools.partial(_function, 1), functools.partial(_function, x=1), int, len,
    _Known("a"), _Known("b"), _Known("a").run, _Known("b").run,
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), _EQUAL)
def test_equal_values_have_one_digest(one: Any, other: Any) -> None:
    assert _digest(one) == _digest(other)


def test_different_values_have_different_digests() -> None:
    digests = [_digest(value) for value in _DIFFERENT]
    assert len(set(digests)) == len(digests)
    assert digest_of_call(_function, {"y": 1}) != _digest(1)
    assert digest_of_call(_closure, {"x": 1}) != _digest(1)


def test_a_digest_is_the_same_in_each_process() -> None:
    """The hashes of str, and so the orders of sets, differ."""
    code = "from tests import test_digest as t; print([t._digest(value) for value in t._DIFFERENT])"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert found == {f"{[_digest(value) for value in _DIFFERENT]}\n"}


_cycle: list[Any] = []
_cycle.append({"a": _cycle})
_deep: list[Any] = []
for _ in range(100_000):
    _deep = [_deep]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: 1, "x is a lambda"),
        ([1, {"a": object()}], r"x\[1\]\['a'\] is a object"),
        (_Config(0.1, threading.Lock()), r"x.layers is a _thread.lock"),
        ((each for each in ()), "x is a generator"),
        (_cycle, r"x\[0\]\['a'\] contains itself"),
        (_deep, "nested too deeply"),
        (_Hostile(), "RuntimeError"),
        (np.zeros(2, "i4,f8"), "x is an array of"),
        (_closure(object()), "x.value is a object"),
        (np.array([object()]), r"x\[0\] is a object"),
    ],
)
def test_a_value_of_unknown_content_is_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(NoDigestError, match=words):
        _digest(value)
