"""Options of Python as the texts that recipes and the command line have."""

from __future__ import annotations

import os
from typing import Any

#: Options of a loaded step, not of its compilation.
OF_LOADING = ("threads", "autotune", "tf32", "device_index")


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):  # losses
        return ";".join(",".join(f"{key}={text(item[key])}" for key in item) for item in value)
    if isinstance(value, (list, tuple)):
        return ",".join(text(item) for item in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def pairs(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Those that are None are left out."""
    return [(key, text(value)) for key, value in options.items() if value is not None]
