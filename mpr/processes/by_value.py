"""Pickles with cloudpickle, which pickles some functions and classes by value (with their code), the others by name.

cloudpickle looks only at the process that pickles. It takes by value all functions and classes of `__main__`, and
all that it does not find by their name in an imported module, such as lambdas. It takes the others by name, even if
their module is missing in the worker: the worker then fails to load them.

cloudpickle 3.1.3 replaces the file names of functions that it pickles by value. This module keeps the names, so that
tracebacks show the lines of functions of `__main__` and of notebooks.

cloudpickle pickles the wrapper of `functools.lru_cache` by name in any case. If the wrapper belongs to `__main__`, or
cannot be found by its name here, this module sends its function and the limits of its cache instead. The cache begins
empty in each worker.
"""

from __future__ import annotations

import functools
import io
import sys
from collections import ChainMap
from collections.abc import Callable
from types import CodeType
from typing import Any, ClassVar

import cloudpickle


def dumps(value: object, protocol: int, buffer_callback: Callable[[Any], object] | None = None) -> bytes:
    """Return the pickle of `value`, as `cloudpickle.dumps` does, with the two changes that the module describes.

    `protocol` and `buffer_callback` are as in `pickle.dumps`. If `value` cannot be pickled, raises the error of
    cloudpickle or of a user's `__reduce__`.
    """
    with io.BytesIO() as file:
        _Pickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(value)
        return file.getvalue()


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return _code_of_file, (make, arguments, code.co_filename)


def _code_of_file(make: Callable[..., CodeType], arguments: tuple[Any, ...], filename: str) -> CodeType:
    return make(*arguments).replace(co_filename=filename)


def _cached(wrapped: Callable[..., Any], parameters: dict[str, Any], attributes: dict[str, Any]) -> Any:
    wrapper = functools.lru_cache(**parameters)(wrapped)
    vars(wrapper).update(attributes)
    return wrapper


def _is_importable(wrapper: Any) -> bool:
    """Return True if `wrapper` is found by its name in a module that this process has imported.

    Other processes are then expected to find it, too. Returns False for everything of `__main__`, because another
    process may have another `__main__`.
    """
    module, found = wrapper.__module__, sys.modules.get(wrapper.__module__)
    for part in wrapper.__qualname__.split("."):
        found = getattr(found, part, None)
    return module != "__main__" and found is wrapper


_LruCache = type(functools.lru_cache(len))
# The attributes that `lru_cache` itself sets.
_OF_WRAPPER = {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "cache_parameters"}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    dispatch_table: ClassVar = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def reducer_override(self, obj: Any) -> Any:
        # This is not in `dispatch_table`, because only some of the wrappers are pickled in this way.
        if type(obj) is _LruCache and not _is_importable(obj):
            attributes = {name: value for name, value in vars(obj).items() if name not in _OF_WRAPPER}
            return _cached, (obj.__wrapped__, obj.cache_parameters(), attributes)
        return super().reducer_override(obj)
