"""A prefix before the entity paths in the arguments of the SDK's logging calls."""

from __future__ import annotations

from typing import Any


def with_prefix(name: str, prefix: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The arguments of an entry with `prefix` before every entity path in them."""
    if name in ("log_arrow_msg", "send_arrow_chunk"):
        return (under(prefix, args[0]), *args[1:]), kwargs
    if name in ("log_file_from_path", "log_file_from_contents"):
        own = kwargs.get("entity_path_prefix")
        return args, {**kwargs, "entity_path_prefix": prefix if own is None else under(prefix, own)}
    if name == "send_chunks":
        chunks = [args[0]] if hasattr(args[0], "with_entity_path") else args[0]
        return ((each.with_entity_path(under(prefix, each.entity_path)) for each in chunks), *args[1:]), kwargs
    return args, kwargs


def under(prefix: str, path: str) -> str:
    path = path.removeprefix("/")
    # The recording's properties stay where viewers look for them, and what mpr notes under `mpr`.
    return path if path.partition("/")[0] in ("__properties", "mpr") else f"{prefix}/{path}"
