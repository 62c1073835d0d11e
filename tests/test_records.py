"""A run's folder: what is written is what is read, a torn line is dropped, another configuration is refused."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.files import seal, unseal
from adamlab.hyperparameters import Hyperparameters
from adamlab.protocol import PROTOCOLS
from adamlab.provenance import provenance
from adamlab.records import RecordsError

CONFIG = RunConfig("digits", "plain20", PROTOCOLS["smoke"])


def epoch(number, loss=1.0):
    return {"epoch": number, "train_loss": loss, "test_loss": 2.0, "test_accuracy": 0.5, "seconds": 1.0}


@pytest.fixture
def folder(tmp_path):
    folder = records.run_folder(tmp_path, CONFIG)
    recording.open_run(folder, CONFIG, {"commit": "abc"})
    return folder


def test_what_is_written_is_what_is_read(folder):
    loss = 0.1 + 0.2  # 0.30000000000000004: every digit is kept
    recording.append(folder, epoch(1, loss))
    recording.append(folder, {"outcome": "finished"})
    run = records.read_run(folder)
    assert run.config == CONFIG
    assert run.provenance == {"commit": "abc"}
    assert run.epochs == [epoch(1, loss)]
    assert run.outcome == {"outcome": "finished"}


def test_a_torn_line_ends_the_reading_and_is_dropped(folder):
    recording.append(folder, epoch(1))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_lo')  # a crash in the middle of a write
    assert records.read_run(folder).epochs == [epoch(1)]
    recording.resume(folder, 1, {"commit": "abc"}, anew=False)
    recording.append(folder, epoch(2))
    assert records.read_run(folder).epochs == [epoch(1), epoch(2)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (json.dumps(epoch(2)), "line 2: its checksum is missing"),
        (json.dumps(seal(epoch(2, 0.5))).replace("0.5", "0.4"), "line 2: its checksum is another"),
        (json.dumps(seal(epoch(1))), "line 2: epoch 1 follows 1 lines"),
    ],
)
def test_a_line_that_no_run_wrote_there_is_damage(folder, line, reason):
    recording.append(folder, epoch(1))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(records.Damaged, match=reason):
        records.read_run(folder)


def test_a_configuration_without_its_checksum_is_damaged(folder):
    content = unseal((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(records.Damaged, match="its checksum is missing"):
        records.read_run(folder)


def test_a_damaged_configuration_is_set_aside(folder):
    (folder / "config.json").write_text("{")
    recording.open_run(folder, CONFIG, {})
    assert (folder / "config.json.damaged").read_text() == "{"


def test_a_number_that_json_lacks_is_not_written(folder):
    with pytest.raises(ValueError, match="JSON"):
        recording.append(folder, epoch(1, math.nan))
    assert records.read_run(folder).epochs == []


def test_what_lies_in_a_runs_folder_is_no_run(folder, tmp_path):
    (folder / "checkpoint").mkdir()
    shutil.copy(folder / "config.json", folder / "checkpoint")
    assert [run.folder for run in records.read_runs(tmp_path)] == [folder]


def test_resuming_drops_what_comes_after(folder):
    before = (folder / "config.json").read_bytes()
    for number in (1, 2, 3):
        recording.append(folder, epoch(number))
    recording.resume(folder, 2, {"commit": "abc"}, anew=False)
    assert records.read_run(folder).epochs == [epoch(1), epoch(2)]
    assert (folder / "config.json").read_bytes() == before


def test_a_run_says_all_that_trained_it(folder):
    """And nothing of which nothing is kept."""
    recording.append(folder, epoch(1))
    for commit in ("def", "def", "abc"):
        recording.resume(folder, 1, {"commit": commit}, anew=False)
    run = records.read_run(folder)
    assert (run.provenance, run.continued) == ({"commit": "abc"}, [{"commit": "def"}, {"commit": "abc"}])
    assert run.epochs == [epoch(1)]
    recording.resume(folder, 0, {"commit": "ghi"}, anew=True)
    run = records.read_run(folder)
    assert (run.config, run.provenance, run.continued, run.epochs) == (CONFIG, {"commit": "ghi"}, [], [])


def test_another_configuration_is_refused_and_left_alone(folder):
    before = (folder / "config.json").read_bytes()
    other = replace(CONFIG, protocol=replace(CONFIG.protocol, epochs=7))
    with pytest.raises(RecordsError, match=r"another configuration \(epochs 7 here, 2 there\); choose another --out"):
        recording.open_run(folder, other, {})
    assert (folder / "config.json").read_bytes() == before


def test_a_run_killed_before_its_configuration_was_written_begins_without_a_trace(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    warnings = []
    run = recording.open_run(tmp_path, CONFIG, {"commit": "abc"}, warnings.append)
    assert (run.epochs, run.outcome, warnings) == ([], None, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.jsonl"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "config": {}, "provenance": {}}'])
def test_a_damaged_config_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(RecordsError, match=r"config.json is damaged .*; its study's command repairs it"):
        records.read_run(folder)


def test_another_schema_is_refused(folder):
    content = unseal((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(seal(content | {"schema": 99})))
    with pytest.raises(RecordsError, match="has schema 99, this version reads 1 and 2"):
        records.read_run(folder)


def test_an_intact_record_of_another_version_is_refused_and_left_alone(folder):
    """A field that this version does not know: nothing is damaged, and nothing may be trained over it."""
    content = unseal((folder / "config.json").read_text())
    content["config"]["momentum"] = 0.9
    (folder / "config.json").write_text(json.dumps(seal(content)))
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    for attempt in (
        records.read_run,
        lambda f: records.find_run(f, CONFIG),
        lambda f: recording.open_run(f, CONFIG, {}),
    ):
        with pytest.raises(RecordsError, match=r"config.json is of another version of this program .*momentum"):
            attempt(folder)
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_what_cannot_be_read_is_one_line(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(RecordsError, match=rf"cannot read .*{name}: Is a directory"):
        records.read_run(folder)


def test_load_gives_one_row_per_run_and_epoch(tmp_path):
    settings = [Hyperparameters(), Hyperparameters(alpha=0.1), Hyperparameters(beta1=0.5)]
    for hyperparameters in settings:
        config = replace(CONFIG, hyperparameters=hyperparameters)
        folder = records.run_folder(tmp_path, config)
        recording.open_run(folder, config, {})
        if hyperparameters.alpha == 0.1:  # diverged in its first epoch: no record, and still a row
            recording.append(folder, {"outcome": "diverged", "epoch": 1, "step": 3})
        else:
            recording.append(folder, epoch(1))
            recording.append(folder, epoch(2))
    table = records.load(tmp_path)
    assert len(table) == 2 + 1 + 2
    assert dict(table.groupby("setting")["outcome"].first()) == {
        "default": "unfinished",
        "alpha=0.1": "diverged",
        "beta1=0.5": "unfinished",
    }
    assert table.loc[table["alpha"] == 0.1, "epoch"].tolist() == [0]
    assert table.loc[table["alpha"] == 0.1, "train_loss"].isna().all()
    assert {"dataset", "model", "protocol", "epochs", "batch_size", "seed", "epsilon_placement"} <= set(table.columns)


def test_a_study_on_another_disk_is_read_through_its_link(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    study = (tmp_path / "digits-smoke").rename(tmp_path / "disk" / "digits-smoke")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "digits-smoke").symlink_to(study)
    (study / "around").symlink_to(tmp_path / "results")  # a loop ends
    (run,) = records.read_runs(tmp_path / "results")
    assert run.config == CONFIG
    assert run.folder == records.run_folder(tmp_path / "results", CONFIG)


def test_no_runs_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(RecordsError, match=f"no runs below {tmp_path}"):
        records.load(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named_and_not_left_out(folder, tmp_path, monkeypatch):
    """As a server that does not answer, or rights that are missing, which root cannot take from itself."""
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    assert len(records.read_runs(tmp_path)) == 1
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RecordsError, match=f"cannot read {tmp_path}/locked: Permission denied"):
        records.read_runs(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordsError, match=r"cannot write results to .*file.*: Not a directory"):
        recording.open_run(tmp_path / "file" / "run", CONFIG, {})


def test_provenance_names_commit_versions_and_device():
    origin = provenance("1 x cpu")
    assert origin["device"] == "1 x cpu"
    assert {"python", "jax", "flax", "optax", "numpy"} <= set(origin["versions"])
    command = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, cwd=os.path.dirname(__file__))
    if head.returncode == 0:
        assert origin["commit"].rstrip("+") == head.stdout.strip()


def test_a_commit_with_changes_has_a_plus(tmp_path, monkeypatch):
    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    (tmp_path / "provenance.py").write_text("1")
    git("init")
    monkeypatch.setattr("adamlab.provenance.__file__", str(tmp_path / "provenance.py"))
    assert provenance("1 x cpu")["commit"] is None
    git("add", ".")
    git("commit", "-m", "a")
    head = git("rev-parse", "--short", "HEAD")
    assert provenance("1 x cpu")["commit"] == head
    (tmp_path / "provenance.py").write_text("2")
    assert provenance("1 x cpu")["commit"] == f"{head}+"


def test_reading_records_does_not_import_jax(folder):
    code = f"import sys, adamlab.records as r; r.load({str(folder)!r}); sys.exit('jax' in sys.modules)"
    recording.append(folder, epoch(1))
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
