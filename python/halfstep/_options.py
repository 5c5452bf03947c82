"""Options of Python as the texts that recipes and the command line have."""

from __future__ import annotations

import os
from typing import Any

from ._errors import Error

#: Options of a loaded step, not of its compilation.
OF_LOADING = ("threads", "autotune", "tf32", "device_index")


def _loss(number: int, keys: dict[str, Any]) -> str:
    if not keys:
        raise Error(f"losses: loss {number}: it is empty")
    texts = {key: ":".join(map(text, value)) if isinstance(value, (list, tuple)) else text(value)
             for key, value in keys.items()}
    for key, value in texts.items():
        if any(separator in part for part in (key, value) for separator in ",;"):
            raise Error(
                f"losses: loss {number}: {key}: '{value}' holds ',' or ';', which separate losses and their keys"
            )
    return ",".join(f"{key}={value}" for key, value in texts.items())


def text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):  # losses
        return ";".join(_loss(number, item) for number, item in enumerate(value, 1))
    if isinstance(value, (list, tuple)):
        return ",".join(text(item) for item in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def pairs(options: dict[str, Any]) -> list[tuple[str, str]]:
    """Those that are None are left out."""
    return [(key, text(value)) for key, value in options.items() if value is not None]
