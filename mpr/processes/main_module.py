"""What workers have of the program's `__main__`."""

from __future__ import annotations

import functools
import os
import sys
from multiprocessing import process


def prepare_main() -> None:
    """Let workers be started from here; raise where a worker that is just importing `__main__` would start a pool."""
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "mpr.Pool was created while a worker imported the main script. Put the code that starts the program "
            "under a guard, or every worker starts a pool of its own:\n\n"
            "    if __name__ == '__main__':\n        main()\n"
        )
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) == "<stdin>":
        # `multiprocessing` would take it for a file that workers can import. With `python -c` there is none either.
        del main.__file__  # type: ignore[union-attr]  # it has one


def workers_import_main() -> bool:
    """Whether a worker imports `__main__`, as `multiprocessing.spawn` has it; else what it defines goes by value.

    Not so in a notebook, at the prompt, with `python -c` or `python -`, and for a `__main__.py`.
    """
    main = sys.modules.get("__main__")
    return _can_be_imported(getattr(getattr(main, "__spec__", None), "name", None), getattr(main, "__file__", None))


# This is asked for each task, and for each result.
@functools.lru_cache(maxsize=16)
def _can_be_imported(name: str | None, path: str | None) -> bool:
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    # IPython's own script is left alone.
    return path is not None and os.path.splitext(os.path.basename(path))[0] != "ipython"
