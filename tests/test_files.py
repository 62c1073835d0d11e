"""Files are written whole, by one process, by several at once, and after a killed one; a run is one process's."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread, current_thread

import pytest

from adamlab import recording
from adamlab.files import Held, RecordsError, hold, make_folder, seal, unseal, write_whole

WRITES = "import os, pathlib, sys; from adamlab.files import write_whole; path = pathlib.Path(sys.argv[1]); "
IS_KILLED = WRITES + "os.replace = lambda *paths: os.kill(os.getpid(), 9); write_whole(path, 'half')"
WRITES_OFTEN = WRITES + "[write_whole(path, sys.argv[2] * 100_000) for _ in range(50)]"
HOLDER = """
import sys, time
from pathlib import Path
from adamlab.files import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write_whole(tmp_path / "report.html", "±")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write_whole(tmp_path / "report.html", "±")
    assert (tmp_path / "report.html").read_bytes() == "±".encode()


def test_the_next_writer_clears_what_a_killed_one_left(tmp_path):
    path, other = tmp_path / "figure[1].svg", tmp_path / "figure2.svg"
    for name in (path, other):
        process = subprocess.run([sys.executable, "-c", IS_KILLED, name])
        assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.tmp"))) == 2
    write_whole(path, "whole")
    assert path.read_text() == "whole"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith("figure2.svg.")  # its own writer may be at work


def test_processes_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "report.html"
    writers = [subprocess.Popen([sys.executable, "-c", WRITES_OFTEN, path, letter]) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    seen.add(path.read_text())
    assert seen <= {letter * 100_000 for letter in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_writers_on_two_machines_may_have_one_number(tmp_path, monkeypatch):
    """As the only process of a container has. Here two threads: the second one writes while the first one does."""
    path, written, released = tmp_path / "report.html", Event(), Event()
    second = Thread(target=lambda: write_whole(path, "b"))

    def wait(descriptor):
        if current_thread() is second:
            written.set()
            released.wait()
        elif not second.ident:
            second.start()
            written.wait()

    monkeypatch.setattr(os, "fsync", wait)
    write_whole(path, "a")
    assert path.read_text() == "a"
    released.set()
    second.join()
    assert path.read_text() == "b"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_no_folder_can_have_is_bad_input(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for folder in (tmp_path / ("x" * 300), tmp_path / "loop" / "results"):
        with pytest.raises(RecordsError, match="cannot write results to") as error:
            make_folder(folder)
        assert error.type is RecordsError  # and no WriteError, which is the disk's fault


def test_a_checksum_is_of_what_is_said_in_any_order():
    content = {"b": 1, "a": 2}
    crc = seal(content)["crc"]
    assert unseal(f'{{"crc": "{crc}", "a": 2, "b": 1}}') == content


def test_a_run_belongs_to_one_process_until_it_ends_even_by_a_kill(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Held, match=rf"by process {holder.pid} on "), hold(tmp_path):
            raise AssertionError("held twice")
        holder.kill()
    assert (tmp_path / "lock").exists()  # nobody was left to remove it
    with hold(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_deleted_and_is_anothers_keeps_its_lock(tmp_path):
    folder = tmp_path / "run"
    with hold(folder):
        shutil.rmtree(folder)
        second = subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "held\n"
    with second:
        with pytest.raises(Held, match=rf"by process {second.pid} on "), hold(folder):
            raise AssertionError("held twice")
        second.kill()


def test_a_lock_whose_file_its_last_holder_has_removed_is_none(tmp_path, monkeypatch):
    """Between our opening the file and our locking it."""
    real, calls = fcntl.flock, []

    def flock(descriptor, how):
        if not calls:
            (tmp_path / "lock").unlink()
        calls.append(how)
        real(descriptor, how)

    monkeypatch.setattr("fcntl.flock", flock)
    with hold(tmp_path), pytest.raises(Held), hold(tmp_path):
        raise AssertionError("held twice")


def test_what_gets_its_name_is_on_the_disk(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, real=real, name=name: (calls.append(name), real(*given))[1])
    write_whole(tmp_path / "metrics.jsonl", "")
    assert calls == ["fsync", "replace"]
    recording.append(tmp_path, {"epoch": 1})
    assert calls[2:] == ["fsync"]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(RecordsError, match=r"cannot lock .*lock: No locks available"), hold(tmp_path):
        raise AssertionError("held")
