"""Files that a crash leaves whole and whose damage shows: written at once, with a checksum of what they say."""

import json
import os
import zlib
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, meets the old content or the new one and nothing between."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def set_aside(path: Path) -> None:
    """Keeps a damaged file for a person to look at, under a name that no program reads; nothing if there is none."""
    if path.exists():
        path.replace(path.with_name(path.name + ".damaged"))


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The content with its checksum, `crc`: of what it says, not of how JSON writes that.

    >>> seal({"epoch": 1})
    {'epoch': 1, 'crc': '94919848'}
    """
    return content | {"crc": _checksum(content)}


def unseal(text: str | bytes, required: bool = True) -> dict[str, Any]:
    """The content of a JSON text without its checksum.

    Args:
      text: What was read.
      required: Whether content without a checksum is damaged, too.

    Raises:
      ValueError: It is not what was sealed.

    >>> unseal('{"epoch": 2, "crc": "94919848"}')
    Traceback (most recent call last):
    ValueError: its checksum is another
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    crc = content.pop("crc", None)
    if crc is None and required:
        raise ValueError("its checksum is missing")
    if crc is not None and crc != _checksum(content):
        raise ValueError("its checksum is another")
    return content


def _checksum(content: dict[str, Any]) -> str:
    """CRC-32, which sees every damage of up to 32 bits in a row, and all others but one in 2**32."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
