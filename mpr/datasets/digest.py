"""Makes a digest of the call of a task: the same call gives the same digest in every process and on every machine.

The digest is a hash of the name of the function, with its module, and of the values of its arguments, each with its
type. Values that belong to the function count, too: variables of an outer function, the object of a method, and the
arguments of a `functools.partial`. The code of the function does not count. The order of a dict or a set does not
count, nor does the memory order of an array. A lambda has no digest, and neither has a value whose content is not
known, such as a lock. A class can define a method `__mpr_digest__`, which
returns any value that has a digest. This value then takes the place of the object.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import os
import struct
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mpr.user_code import passes, represent, type_name

_BYTES = 16
_BY_TEXT = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction)


class NoDigestError(TypeError):
    """A value has no digest. The text of the error says which part of the call this is, and why it has no digest."""


def digest_of_call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    """Return the digest of a call, 32 hexadecimal digits. `arguments` are the values by the names of their parameters.

    Raises `NoDigestError` if the function or an argument has no digest.
    """
    walk = _Walk()
    parts = [walk.of(function, "the function"), *walk.named(arguments.items(), "")]
    return hashlib.blake2b(b"".join(parts), digest_size=_BYTES).hexdigest()


def combined(*texts: str) -> str:
    """Return a digest of `texts`, 32 hexadecimal digits."""
    parts = [text.encode(errors="surrogatepass") for text in texts]
    return hashlib.blake2b(b"".join(_sized(part) for part in parts), digest_size=_BYTES).hexdigest()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data


def _tagged(tag: bytes, *parts: bytes) -> bytes:
    """Return a hash of `tag` and `parts`: the name of a type, and the encoded parts of a value of this type."""
    state = hashlib.blake2b(_sized(tag), digest_size=_BYTES)
    for part in parts:
        state.update(_sized(part))
    return state.digest()


class _Walk:
    """Makes the digests of values. Remembers which values it is inside of, to find a value that contains itself."""

    def __init__(self) -> None:
        self._inside: set[int] = set()

    def named(self, items: Iterable[tuple[str, Any]], where: str) -> list[bytes]:
        """Return the sorted digests of `items`, which are pairs (name, value). So the order of `items` does not count.

        `where` is the place of `items` in the call, for errors. Raises `NoDigestError` if a value has no digest.
        """
        found = (
            _sized(name.encode(errors="surrogatepass")) + self.of(value, f"{where}.{name}" if where else name)
            for name, value in items
        )
        return sorted(found)

    def of(self, value: Any, where: str) -> bytes:
        """Return the digest of `value`. `where` is its place in the call, for errors.

        Raises `NoDigestError` if the value has no digest.
        """
        kind = type(value)
        if value is None:
            return _tagged(b"none")
        if kind is bool or kind is int:
            return _tagged(kind.__name__.encode(), hex(value).encode())
        if kind is float:
            return _tagged(b"float", struct.pack(">d", value))
        if kind is str:
            return _tagged(b"str", value.encode(errors="surrogatepass"))
        if id(value) in self._inside:
            raise NoDigestError(f"{where} contains itself")
        self._inside.add(id(value))
        try:
            return self._of_other(value, where)
        except RecursionError:
            raise NoDigestError(f"{where} is nested too deeply") from None
        except NoDigestError:
            raise
        except BaseException as error:
            # A user's `__mpr_digest__` or `__getattr__` may raise anything.
            if passes(error):
                raise
            raise NoDigestError(f"{where} raises {represent(error)} while its digest is made") from error
        finally:
            self._inside.discard(id(value))

    def _of_other(self, value: Any, where: str) -> bytes:
        kind = type(value)
        own = getattr(kind, "__mpr_digest__", None)
        if own is not None:
            return _tagged(b"own", _name(kind, where), self.of(own(value), f"{where}.__mpr_digest__()"))
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
            return self._of_numpy(value, where)
        found = self._of_container(value, where)
        if found is None:
            found = self._of_function(value, where)
        if found is None and isinstance(value, _BY_TEXT):
            found = _tagged(_name(kind, where), repr(value).encode())
        if found is None and isinstance(value, complex):
            found = _tagged(b"complex", struct.pack(">dd", value.real, value.imag))
        if found is None and isinstance(value, bytes | bytearray):
            found = _tagged(b"bytes", bytes(value))
        if found is None and isinstance(value, os.PathLike):
            found = _tagged(b"path", os.fsencode(value))
        if found is None and isinstance(value, uuid.UUID):
            found = _tagged(b"uuid", value.bytes)
        if found is None:
            raise NoDigestError(f"{where} is a {type_name(kind)}, which has no digest")
        return found

    def _of_container(self, value: Any, where: str) -> bytes | None:
        kind = type(value)
        if isinstance(value, enum.Enum):
            return _tagged(b"enum", _name(kind, where), value.name.encode())
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
            return _tagged(b"dataclass", _name(kind, where), *self.named(parts, where))
        if kind is list or kind is tuple:
            found = [self.of(each, f"{where}[{index}]") for index, each in enumerate(value)]
            return _tagged(kind.__name__.encode(), *found)
        if kind is dict:
            pairs = (
                (self.of(key, f"a key of {where}"), self.of(each, f"{where}[{key!r}]")) for key, each in value.items()
            )
            return _tagged(b"dict", *(key + each for key, each in sorted(pairs)))
        if kind is set or kind is frozenset:
            return _tagged(b"set", *sorted(self.of(each, f"an element of {where}") for each in value))
        if kind is range or kind is slice:
            return _tagged(b"range", repr(value).encode())
        if isinstance(value, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
            return _tagged(b"named", _name(kind, where), *self.named(zip(names, value, strict=False), where))
        return None

    def _of_function(self, value: Any, where: str) -> bytes | None:
        if isinstance(value, functools.partial):
            function = self.of(value.func, where)
            return _tagged(b"partial", function, self.of(value.args, where), *self.named(value.keywords.items(), where))
        if isinstance(value, types.MethodType):
            return _tagged(b"method", self.of(value.__func__, where), self.of(value.__self__, f"the object of {where}"))
        if isinstance(value, types.FunctionType):
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
            found = [(name, cell.cell_contents) for name, cell in cells if name != value.__name__]
            return _tagged(b"function", _name(value, where), *self.named(found, where))
        if isinstance(value, type | types.BuiltinFunctionType):
            return _tagged(b"name", _name(value, where))
        inner = getattr(value, "__wrapped__", None)
        return None if inner is None else self.of(inner, where)

    def _of_numpy(self, value: Any, where: str) -> bytes:
        import numpy as np

        kind = value.dtype.kind
        if value.ndim == 0 and kind in "biufU":
            return self.of(value.item(), where)
        if kind == "O":
            return _tagged(b"objects", repr(value.shape).encode(), self.of(value.ravel().tolist(), where))
        if kind not in "biufcUSmM":
            raise NoDigestError(f"{where} is an array of {value.dtype}, which has no digest")
        # In C order and with little-endian numbers, whatever the order in memory is.
        data = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        return _tagged(b"array", data.dtype.str.encode(), repr(value.shape).encode(), data.tobytes())


def _name(value: Any, where: str) -> bytes:
    """Return the module and the qualified name of a function or a class. Raises `NoDigestError` for a lambda."""
    name = getattr(value, "__qualname__", "")
    if not name or "<lambda>" in name.rpartition(".")[2]:
        raise NoDigestError(f"{where} is a lambda, which has no name of its own: define it with `def`")
    return f"{getattr(value, '__module__', '')}.{name}".encode(errors="surrogatepass")
