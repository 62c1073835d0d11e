"""Files that a crash leaves whole and whose damage shows: written at once, with checksums; and locks.

A results folder is made of them, so what can be wrong with one is here, too.
"""

import errno
import glob
import json
import os
import platform
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class RecordsError(Exception):
    """A results folder that cannot be used. The message is one line and names the path."""


class Held(RecordsError):
    """A run that another process is working on. The message says which."""


class WriteError(RecordsError):
    """The disk does not take what is to be written: it is full, read-only, not ours, or the folder is gone."""


def one_line(error: BaseException) -> str:
    """An error's message on one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, meets the old content or the new one and nothing between.

    What killed writers of the same file left beside it goes.
    """
    # Processes of two machines that share a folder may have the same number.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    written = False
    try:
        while not written:
            with open(temporary, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            # Gone if another writer, who is done, took ours for a killed one's: nobody can tell them apart.
            with suppress(FileNotFoundError):
                temporary.replace(path)
                written = True
        for unfinished in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*.tmp"):
            with suppress(OSError):  # gone already, or not ours to remove
                unfinished.unlink()
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def cache_folder() -> Path | None:
    """Where adamlab keeps what it can make anew: `$XDG_CACHE_HOME/adamlab`, by default `~/.cache/adamlab`.

    None for a user without a home, as some containers have.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adamlab"
    except RuntimeError:
        return None


def set_aside(path: Path) -> None:
    """Keeps a damaged file for a person to look at, under a name that no program reads, if there is anything in it."""
    if path.exists() and path.stat().st_size:
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


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it.

    Raises:
      RecordsError: There can be no folder of that name.
      WriteError: The disk does not take it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # These are no fault of the disk: there can be no folder of that name.
        bad_input = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
        problem = unwritable(folder, error)
        raise RecordsError(str(problem)) if bad_input else problem from None


def unwritable(folder: Path, error: OSError) -> WriteError:
    """What to raise for what the system says of a folder."""
    return WriteError(f"cannot write results to {folder}: {error.strerror}")


@contextmanager
def hold(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keeps a run to this process until the block ends or the process does, however it ends.

    Args:
      folder: The run's.
      patience: Seconds to wait for another process to let go of it.

    Raises:
      Held: Another process has it.
      RecordsError: The folder cannot be written.
    """
    import fcntl  # here, since Windows lacks it: records can be read there

    make_folder(folder)
    path, end = folder / "lock", time.monotonic() + patience
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(folder, error) from None
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(min(1.0, patience))
                    continue
                raise Held(f"{folder} is being worked on by {file.read() or 'another process'}") from None
            except OSError as error:  # a file system without locks
                raise WriteError(f"cannot lock {path}: {error.strerror}") from None
            # Its last holder may have removed the file between our opening and our locking it.
            if not _is_open_as(path, descriptor):
                continue
            try:
                # Past the file's buffer, which closing would try to write once more.
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
            except OSError as error:
                raise unwritable(folder, error) from None
            try:
                yield
            finally:
                # The folder may be gone, made anew and another's, or the disk read-only by now; the lock ends anyway.
                with suppress(OSError):
                    if _is_open_as(path, descriptor):
                        path.unlink()
            return


def _is_open_as(path: Path, descriptor: int) -> bool:
    """Whether the path still names the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _checksum(content: dict[str, Any]) -> str:
    """CRC-32, which sees every damage of up to 32 bits in a row, and all others but one in 2**32."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
