"""Decoded data sets in the user's cache folder: decoding CIFAR-10's PNG images would take most of a start's time.

A copy is used as long as the prepared files are those that it was decoded from, by name, size and time of change. One
that is damaged counts as none, and where none can be written, all is decoded at every start.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from adamlab.data.dataset import Split
from adamlab.files import cache_folder, write_whole

VERSION = 1  # of what is made of the same files: raise it with a change of `adamlab.data.cifar`'s arrays


def decode_once(folder: Path, decode: Callable[[], dict[str, Split]]) -> dict[str, Split]:
    """What `decode` returns, from the copy that an earlier call with the same files has kept.

    Args:
      folder: Where the files are that are decoded, and no others.
      decode: Reads the splits from them.

    Returns:
      The arrays by split and feature.

    Raises:
      DataError: As `decode` does; nothing is kept then.
    """
    if (cache := cache_folder()) is None:
        return decode()
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()))
    source = "\n".join([str(VERSION), *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)])
    # One copy for each folder, however often its files change.
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    path = cache / "decoded" / f"{folder.parent.name}-{place}.npz"
    if (kept := _read(path, source)) is not None:
        return kept
    splits = decode()
    arrays = {f"{split}/{feature}": array for split, part in splits.items() for feature, array in part.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, source=np.array(source), layout=np.array(_layout(arrays)), **arrays)
    with suppress(OSError):  # such as a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    return splits


def _read(path: Path, source: str) -> dict[str, Split] | None:
    """The copy, if it is whole and of this source. Each array has a CRC-32 in it, but the archive's directory none."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            if kept["source"].item() != source:
                return None
            arrays = {name: kept[name] for name in kept.files if "/" in name}
            if kept["layout"].item() != _layout(arrays):
                return None
    except Exception:  # there is no end to what a damaged archive makes NumPy and zipfile raise
        return None
    splits: dict[str, Split] = {}
    for name, array in arrays.items():
        split, _, feature = name.partition("/")
        splits.setdefault(split, {})[feature] = array
    return splits


def _layout(arrays: dict[str, np.ndarray]) -> str:
    return " ".join(f"{name} {array.dtype} {array.shape}" for name, array in sorted(arrays.items()))
