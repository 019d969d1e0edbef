"""Makes a Python process under `mpr run` join the recording, at the latest at its first logging call.

Python imports this module when a process starts, before the script (see `command.py`). So this module must be quick to
import, and imports the rest of mpr only when the process needs it.

Covers: actions after the import of Rerun and of modules with pools.
Does not cover: joining (`producer/membership.py`), and what is changed in pools (`producer/exits.py`).
"""

from __future__ import annotations

import _thread
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType


def begin() -> None:
    """Prepare this process, so that it joins the recording of `mpr run`, at the latest at its first logging call.

    Also prepare the pools of `multiprocessing` and of the package pathos, so that their workers send the rows of each
    task before the task's result. Rerun and the modules of the pools are changed when they are imported: this function
    only adds finders to `sys.meta_path`.
    """
    sys.meta_path.insert(0, _AfterImport("rerun", _after_rerun))
    # The second module is that of pathos.
    for name in ("multiprocessing.pool", "multiprocess.pool"):
        sys.meta_path.insert(0, _AfterImport(name, functools.partial(_after_pool, name)))


def _after_rerun() -> None:
    from mpr.producer import membership

    membership.join_lazily()


def _after_pool(name: str) -> None:
    from mpr.producer import exits

    exits.flush_before_results(sys.modules[name])


class _AfterImport(importlib.abc.MetaPathFinder):
    """A finder for `sys.meta_path` that calls `imported` after the module `name` was imported.

    The other finders find the module. This finder replaces the module's loader by one that calls `imported` afterwards.
    When the module is imported, the finder removes itself from `sys.meta_path`.
    """

    def __init__(self, name: str, imported: Callable[[], None]) -> None:
        self._name = name
        self._imported = imported
        # The threads that search with the other finders now.
        self._searching: set[int] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        thread = _thread.get_ident()
        if fullname != self._name or thread in self._searching:
            return None
        self._searching.add(thread)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(thread)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._end)
        return spec

    def _end(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._imported()


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, imported: Callable[[], None]) -> None:
        self._loader = loader
        self._imported = imported

    def __getattr__(self, name: str) -> object:
        # A program that only looks for the module may ask for more of the loader.
        found: object = getattr(self._loader, name)
        return found

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The original loader is put back, because code that reads resources of the package asks the loader for them.
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._imported()
