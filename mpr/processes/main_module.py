"""Decides if workers can import the program's `__main__`, and forbids making a pool during this import."""

from __future__ import annotations

import functools
import os
import sys
from multiprocessing import process

from mpr.threads import check_threads

#: The exit code of a worker that has met a new pool while it imported `__main__`, and the reason in words.
NO_GUARD_EXIT = 79
NO_GUARD = (
    "mpr.Pool was created while a worker imported the main script. Put the code that starts the program under a guard, "
    "or every worker starts a pool of its own:\n\n    if __name__ == '__main__':\n        main()\n"
)


def prepare_main() -> None:
    """Check that this process may start workers. Delete `__main__.__file__` if it is `<stdin>`, which is no file.

    In a process that is importing `__main__`, a pool cannot be made, because each worker would start a pool of its own.
    A worker of mpr then ends with `NO_GUARD_EXIT`, and its parent raises the error. A process that `multiprocessing`
    has started raises `RuntimeError`.
    Raises `ConfigError` if gevent or eventlet has replaced the threads of this process.
    """
    check_threads()
    if getattr(process.current_process(), "_inheriting", False):
        if process.current_process().name.startswith("mpr-worker-"):
            # At once and silently, because the traceback of each worker would hide the error of the parent.
            os._exit(NO_GUARD_EXIT)
        raise RuntimeError(NO_GUARD)
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) == "<stdin>":
        # The file name `<stdin>` is removed, because `multiprocessing` would make workers import a file of this name.
        # With `python -c`, `__main__` has no file name either.
        del main.__file__  # type: ignore[union-attr]  # it has one


def workers_import_main() -> bool:
    """Return True if a worker imports the program's `__main__`, by the rules of `multiprocessing.spawn`.

    A worker does not import the `__main__` of a notebook, of the interactive prompt, of `python -c` or of `python -`,
    nor the `__main__.py` of `python -m <package>` or of `python <folder>`.
    """
    main = sys.modules.get("__main__")
    return _can_be_imported(getattr(getattr(main, "__spec__", None), "name", None), getattr(main, "__file__", None))


# The answers are cached, because this function is called for each task and each result.
@functools.lru_cache(maxsize=16)
def _can_be_imported(name: str | None, path: str | None) -> bool:
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    # The start script of IPython is not imported, because it is not a program of the user.
    return path is not None and os.path.splitext(os.path.basename(path))[0] != "ipython"
