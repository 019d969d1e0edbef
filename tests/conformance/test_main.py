"""CPython's own tests of pools with functions of `__main__`: scripts, packages, folders and archives."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from tests import support
from tests.conformance import cpython

tmh = cpython.module("test_multiprocessing_main_handling")

# The beginning of CPython's scripts, and its replacement in ours.
_IMPORT = "from multiprocessing import Pool, set_start_method\n"
_INSTEAD = """\
import functools, mpr
Pool = functools.partial(mpr.Pool, "conformance", sinks={sink!r}, start_method=sys.argv[1])
set_start_method = str
"""


class OnMpr:
    """Let the scripts use `mpr.Pool`."""

    #: `multiprocessing` cannot run what a `__main__.py` defines; mpr can.
    main_in_children_source: ClassVar[str] = tmh.test_source

    @classmethod
    def setUpClass(cls: Any) -> None:
        sink = Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "run.rrd"
        for name in ("make_script", "make_zip_pkg"):
            writes = functools.partial(_write, getattr(tmh, name), _INSTEAD.format(sink=str(sink)))
            cls.enterClassContext(mock.patch.object(tmh, name, writes))


def _write(original: Callable[..., Any], instead: str, *arguments: Any) -> Any:
    return original(*(each.replace(_IMPORT, instead) if isinstance(each, str) else each for each in arguments))


def _case(method: str) -> type:
    case = cpython.derive(
        tmh.MultiProcessingCmdLineMixin, OnMpr, name=f"Test_{method}", left_out={}, start_method=method
    )
    return case if method == "forkserver" else pytest.mark.slow(case)


globals().update({f"Test_{method}": _case(method) for method in support.START_METHODS})


def test_the_scripts_of_cpython_can_be_changed_to_use_mpr() -> None:
    for source in (tmh.test_source, tmh.test_source_main_skipped_in_children):
        assert source.count(_IMPORT) == 1
