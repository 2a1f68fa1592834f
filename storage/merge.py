"""JSON Merge Patch, RFC 7396."""

from collections.abc import Mapping
from typing import Any

from scada.errors import ConfigError

# Deeper than any document of ours, far from Python's recursion limit.
MAX_DEPTH = 32


def merge_patch(target: Mapping[str, Any], patch: object, depth: int = 0) -> dict[str, Any]:
    """`target` with what `patch` says: null removes, an object goes deeper, all else replaces (RFC 7396 section 2).

    Raises ConfigError when the patch is no object: it would replace the whole document.
    """
    if not isinstance(patch, Mapping):
        raise ConfigError("must be an object")
    if depth > MAX_DEPTH:
        raise ConfigError("is nested too deep")
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = merge_patch(below if isinstance(below, Mapping) else {}, value, depth + 1)
        else:
            result[name] = value
    return result
