"""A download is whole and verified, or given up in time with a line that says why."""

import hashlib
import http.server
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from adamlab.data import DataError, download
from adamlab.data.download import fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@contextmanager
def _server(respond):
    """A server on this machine that answers every GET with `respond(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file.tar.gz"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _send(handler, blocks, pause=0.0):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    for block in blocks:
        handler.wfile.write(block)
        time.sleep(pause)


def test_fetches_over_http(tmp_path, capsys):
    with _server(lambda handler: _send(handler, [CONTENT])) as url:
        fetch(url, tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == CONTENT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fetching file.tar.gz" in captured.err
    assert captured.err.count("\n") == 1  # not a terminal: one plain line


def test_connection_lost_half_way(tmp_path):
    with (
        _server(lambda handler: _send(handler, [CONTENT[:500_000]])) as url,
        pytest.raises(DataError, match=r"500,000 of 1,048,576 bytes arrived"),
    ):
        fetch(url, tmp_path / "file", DIGEST)


def test_other_contents(tmp_path):
    with _server(lambda handler: _send(handler, [CONTENT[::-1]])) as url, pytest.raises(DataError, match=DIGEST):
        fetch(url, tmp_path / "file", DIGEST)


def test_a_path_is_no_url(tmp_path):
    with pytest.raises(DataError, match=r"could not fetch /home/me/cifar.tar.gz: unknown url type"):
        fetch("/home/me/cifar.tar.gz", tmp_path / "file", "")


def test_not_there(tmp_path):
    with _server(lambda handler: handler.send_error(404)) as url, pytest.raises(DataError, match=f"{url}: Not Found"):
        fetch(url, tmp_path / "file", DIGEST)


def test_refused_connection(tmp_path):
    with socket.socket() as unheard:  # bound, but not listening
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(DataError, match="refused"):
            fetch(f"http://127.0.0.1:{unheard.getsockname()[1]}/file", tmp_path / "file", DIGEST)


def test_gives_up_on_a_server_that_accepts_and_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    start = time.monotonic()
    with (
        _server(lambda handler: time.sleep(1)) as url,
        pytest.raises(DataError, match=r"no answer within 0\.3 seconds|timed out"),
    ):
        fetch(url, tmp_path / "file", DIGEST)
    assert time.monotonic() - start < 3


def test_gives_up_on_a_resolver_that_hangs(tmp_path, monkeypatch):
    """Name resolution knows no timeout."""
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(60) and [])
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no answer within 0\.3 seconds"):
        fetch("http://example.invalid/file", tmp_path / "file", DIGEST)
    done.set()
    assert time.monotonic() - start < 30


def test_gives_up_on_a_transfer_that_stalls(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    with (
        _server(lambda handler: _send(handler, [CONTENT[:1000]], pause=1)) as url,
        pytest.raises(DataError, match="timed out"),
    ):
        fetch(url, tmp_path / "file", DIGEST)


def test_a_slow_transfer_that_moves_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 2.0)
    blocks = [CONTENT[i : i + (1 << 17)] for i in range(0, len(CONTENT), 1 << 17)]
    start = time.monotonic()
    with _server(lambda handler: _send(handler, blocks, pause=0.3)) as url:
        fetch(url, tmp_path / "file", DIGEST)
    assert time.monotonic() - start > 2.0  # longer than the patience with any one block
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_patience_is_within_what_a_person_waits():
    assert download.PATIENCE <= 20
