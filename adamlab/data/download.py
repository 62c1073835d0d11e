"""Fetches one file, whole and verified, or says in one line why not."""

import hashlib
import http.client
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from adamlab.data.dataset import DataError

PATIENCE = 15.0  # seconds, for a connection to be made and for each block of data to arrive
BLOCK = 1 << 18  # bytes


def fetch(url: str, path: Path, sha256: str) -> None:
    """Downloads `url` to `path` with a progress bar on standard error.

    Gives up after `PATIENCE` seconds without an answer or without data; a slow download that moves goes on.

    Args:
      url: http, https or file.
      path: Where the file is written. Give a temporary place: after an error it may hold a part.
      sha256: What the file's SHA-256 must be, in hexadecimal.

    Raises:
      DataError: The host cannot be reached, the transfer fails, or the file is not the expected one.
    """
    # rich takes 0.1 s to import, and whoever has the data never needs it here.
    from rich.console import Console
    from rich.progress import wrap_file

    digest, received = hashlib.sha256(), 0
    try:
        with _open(url) as response, path.open("wb") as file:
            size = int(response.headers["Content-Length"] or 0)
            console = Console(file=sys.stderr)
            with wrap_file(response, size, description=f"fetching {Path(url).name}", console=console) as blocks:
                while block := blocks.read(BLOCK):
                    file.write(block)
                    digest.update(block)
                    received += len(block)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: it is no URL
        raise DataError(f"could not fetch {url}: {getattr(error, 'reason', None) or error}") from error
    if digest.hexdigest() != sha256:
        of_all = f" of {size:,}" if size else ""
        raise DataError(
            f"could not fetch {url}: {received:,}{of_all} bytes arrived and their sha256 is "
            f"{digest.hexdigest()}, expected {sha256}"
        )


def _open(url: str) -> Any:
    """Opens `url` within `PATIENCE` seconds in all.

    A socket's timeout bounds each address and each read, but not the resolver, so the waiting is done from outside.
    The thread is a daemon: one that hangs does not keep the program from ending.
    """
    answer: Future[Any] = Future()

    def connect() -> None:
        try:
            answer.set_result(urlopen(url, timeout=PATIENCE))
        except Exception as error:  # handed to the caller, whatever it is
            if isinstance(error, HTTPError):
                error.close()  # it is a response, too, and holds the connection
            answer.set_exception(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        return answer.result(PATIENCE)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {PATIENCE:g} seconds") from error
