"""The header of a safetensors file, read within bounds and without torch."""

import json
from pathlib import Path
from typing import Any

LARGEST = 100_000_000  # bytes: the safetensors library refuses larger headers, too


def read(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: its tensors by name, and `__metadata__`.

    The format is 8 bytes with the length of the header in little endian, then the header as JSON.
    Raises ValueError where the file is no such file, OSError where it cannot be opened. No more is
    read than the file has, whatever length it states.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, LARGEST):
            raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
        try:
            header = json.loads(file.read(length).decode("utf-8"))
        except RecursionError:
            raise ValueError("the header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header


def metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, which may be empty; errors as `read` raises them."""
    found = read(path).get("__metadata__", {})
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("the metadata are no texts by name")
    return found
