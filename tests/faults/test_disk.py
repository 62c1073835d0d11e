"""A disk that takes nothing more, is read-only, or loses the folder: one clear line, status 1, nothing lost.

Where Orbax meets it, in a process of its own, whose standard error shows all that a person would see.
"""

import resource
import shutil
import subprocess
import sys
from itertools import repeat

import pytest

from adamlab import command, records
from adamlab.training.checkpoint import Checkpoints
from tests.faults import grid, study


def refused(out, where, *command) -> str:
    """The one line with which a study in a process ends, with status 1, after a command at a step."""
    process = grid.train_in_a_process(out, where, *command)
    assert (process.returncode, process.stderr.count("\n")) == (1, 1), process.stderr
    assert process.stderr.startswith("error: cannot write ")
    return process.stderr


def refused_here(out, capsys, hand=lambda run, epoch, step: None) -> str:
    """The same in this process."""
    with pytest.raises(SystemExit) as stop:
        command.run_main(lambda: print(grid.train(out, hand)), "experiments.sensitivity")
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (1, 1), error
    assert error.startswith("error: cannot write ")
    return error


def at(run, epoch, step, action):
    """A hand that does something once, after a step."""

    def hand(*where):
        if where == (run, epoch, step):
            action()

    return hand


def stands(out, run=1):
    """Where the newest intact checkpoint of a run stands, as epochs and steps."""
    position = Checkpoints(grid.folder(out, run) / "checkpoint", warn=lambda message: None).find(grid.CONFIGS[run - 1])
    return position.epochs, len(position.losses)


def test_a_checkpoint_that_does_not_fit_leaves_those_before_it(whole, tmp_path):
    error = refused(tmp_path, (1, 2, 2), "limit", "100000")
    assert "/checkpoint/7 (File too large); the checkpoint before it is kept" in error
    assert stands(tmp_path) == (1, 1)
    said = grid.train(tmp_path, minutes=10)
    assert "continued after step 1 of epoch 2" in said
    assert study.recorded(tmp_path) == whole


def test_a_record_that_does_not_fit_is_written_by_the_next_start(whole, tmp_path, capsys):
    """The second epoch's line is cut off in its middle."""
    before, path = resource.getrlimit(resource.RLIMIT_FSIZE), grid.folder(tmp_path, 1) / "metrics.jsonl"
    size = []

    def fill():
        size.append(path.stat().st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size[0] + 20, before[1]))

    try:
        error = refused_here(tmp_path, capsys, at(1, 2, 4, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{path.parent}: File too large" in error
    assert path.stat().st_size == size[0] + 20
    said = grid.train(tmp_path, minutes=10)
    assert "metrics.jsonl is damaged (line 2 was not written to its end): 1 lines of it are used" in said
    assert study.recorded(tmp_path) == whole
    assert study.leftovers(tmp_path) == []


@pytest.fixture
def disk(tmp_path):
    """A disk of 12 MB of its own, and the function that mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=12m", *options)), "tmpfs", folder]
        return subprocess.run(command, capture_output=True).returncode

    if sys.platform != "linux" or shutil.which("mount") is None or mount() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    yield folder, mount
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(whole, disk):
    folder, _ = disk
    filler = f"head -c $(($(df --output=avail -B1 {folder} | tail -1) - 20000)) /dev/zero > {folder}/filler"
    error = refused(folder / "out", (1, 2, 3), "sh", "-c", filler)
    assert "/checkpoint/8 (No space left on device)" in error
    assert stands(folder / "out") == (1, 2)
    (folder / "filler").unlink()
    grid.train(folder / "out", minutes=10)
    assert study.recorded(folder / "out") == whole


def test_a_disk_that_is_full_at_the_start(whole, disk, capsys):
    """Not even the lock can be written; there is nothing to lose."""
    folder, _ = disk
    grid.train_until_terminated(folder / "out", run=1, epoch=2, step=2)
    with open(folder / "filler", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(repeat(bytes(4096)))
    assert f"{grid.folder(folder / 'out', 1)}: No space left on device" in refused_here(folder / "out", capsys)
    assert stands(folder / "out") == (1, 2)
    (folder / "filler").unlink()
    grid.train(folder / "out", minutes=10)
    assert study.recorded(folder / "out") == whole


def test_a_disk_that_has_become_read_only(whole, disk, capsys):
    folder, mount = disk
    grid.train_until_terminated(folder / "out", run=1, epoch=2, step=2)
    assert mount("remount", "ro") == 0
    assert "Read-only file system" in refused_here(folder / "out", capsys)
    assert "Read-only file system" in refused_here(folder / "another", capsys)
    assert stands(folder / "out") == (1, 2)
    assert mount("remount", "rw") == 0
    grid.train(folder / "out", minutes=10)
    assert study.recorded(folder / "out") == whole


@pytest.mark.slow
def test_a_folder_that_is_deleted_before_a_checkpoint(whole, tmp_path):
    out = tmp_path / "out"
    assert str(out) in refused(out, (1, 2, 2), "rm", "-r", str(out))
    assert not out.exists()
    grid.train(out, minutes=10)
    assert study.recorded(out) == whole


def test_a_folder_that_is_deleted_before_a_record(tmp_path, capsys, one_step_chunks):
    error = refused_here(tmp_path / "out", capsys, at(1, 2, 4, lambda: shutil.rmtree(tmp_path / "out")))
    assert f"{grid.folder(tmp_path / 'out', 1)}: No such file or directory" in error
    assert not (tmp_path / "out").exists()


def test_another_runs_checkpoint_and_records_are_refused(tmp_path, one_step_chunks):
    """Copied into a folder where they do not belong."""
    grid.train_until_terminated(tmp_path, run=2, epoch=2, step=2)
    first, second = grid.folder(tmp_path, 1), grid.folder(tmp_path, 2)
    shutil.copytree(second / "checkpoint", first / "checkpoint")
    (first / "metrics.jsonl").write_text("")
    with pytest.raises(records.RecordsError, match=r"is of another configuration \(alpha 0.001 here, 0.01 there\)"):
        grid.train(tmp_path)
    shutil.copy(second / "config.json", first / "config.json")
    with pytest.raises(records.RecordsError, match=r"holds another configuration \(alpha 0.001 here, 0.01 there\)"):
        grid.train(tmp_path)
