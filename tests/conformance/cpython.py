"""Find CPython's own tests, as the running interpreter has them.

A test runs unchanged against mpr through an adapter, or it is left out with a reason. Each list of tests that are left
out is compared with the tests that exist. So no test disappears silently when CPython renames or adds one.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
import unittest
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.conformance import fetch


def module(name: str) -> ModuleType:
    """Import CPython's module `test.<name>`.

    Without it, the tests of the importing module are skipped. If `CI` is set they fail, because skips go unseen.
    """
    for full in (f"test.{name}", name):
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name is None or not full.startswith(error.name):
                raise
        # Done here, so that the path of workers has it too.
        if str(fetch.FOLDER) not in sys.path:
            sys.path.append(str(fetch.FOLDER))
    reason = f"this Python has no test.{name}, and tests/conformance/fetch.py could not get it"
    if os.environ.get("CI"):
        raise RuntimeError(reason)
    pytest.skip(reason, allow_module_level=True)


def tests_about(word: str, source: ModuleType) -> set[str]:
    """Return `Class.test_name` of every test in `source` with `word` in its code or in the set-up of its class."""
    text = inspect.getsource(source)
    lines = text.lower().splitlines()
    return {
        f"{group.name}.{name}"
        for group in ast.parse(text).body
        if isinstance(group, ast.ClassDef)
        for name in _mentioning(group, word, lines)
    }


def _mentioning(group: ast.ClassDef, word: str, lines: Sequence[str]) -> Iterator[str]:
    functions = [node for node in group.body if isinstance(node, ast.FunctionDef)]
    code = {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in functions}
    in_all = word in code.get("setUpClass", "") + code.get("setUp", "")
    return (name for name, source in code.items() if name.startswith("test") and (in_all or word in source))


def derive(base: type, mixin: type, *, name: str, left_out: Mapping[str, str], **attributes: Any) -> type:
    """Make the test case `name` of `base` and `mixin`, without the tests of `base` in `left_out`."""
    unknown = sorted(set(left_out) - set(dir(base)))
    assert not unknown, f"CPython has no such tests in {base.__name__} (any more): {unknown}"
    own_case = issubclass(base, unittest.TestCase) or issubclass(mixin, unittest.TestCase)
    bases = (base, mixin) if own_case else (base, mixin, unittest.TestCase)
    # The class gets the name of the module, so that pickle finds it there.
    return type(name, bases, {"__module__": mixin.__module__, **attributes, **dict.fromkeys(left_out)})
