"""What a grid's runs are told and asked, in a job of several processes, beside another process, and on an engine."""

import os
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

from adamlab import models, recording, records
from adamlab.files import RecordsError, hold
from adamlab.training import Diverged
from adamlab.training.parallel import Devices
from experiments import grid as studied
from experiments import runs
from experiments.execution import Execution
from tests.faults import grid


@pytest.fixture
def display(monkeypatch):
    monkeypatch.setitem(models.MODELS, "small", grid.NET)
    display = grid.Watched(lambda *where: None)
    with display.running(grid.CONFIGS):
        yield display


def test_process_0_announces_each_run_by_its_place(tmp_path, monkeypatch):
    announced = []
    for module in (runs, studied):
        monkeypatch.setattr(module, "announce", lambda number=0: announced.append(number) or number)
    grid.train(tmp_path, minutes=10)
    assert announced[1:] == [0, 1, runs.END]  # the first is the options' checksum


def test_the_others_train_what_is_announced_and_go_on_after_a_run_that_diverged(tmp_path, monkeypatch):
    numbers, trained = iter([1, 0, runs.END]), []

    def train(config, *others, **options):
        trained.append(config)
        raise Diverged(1, 2)

    monkeypatch.setattr(runs, "announce", lambda: next(numbers))
    monkeypatch.setattr(runs, "train", train)
    folders = {config: grid.folder(tmp_path, number) for number, config in enumerate(grid.CONFIGS, 1)}
    runs.follow(folders, grid.DIGITS, 10, Devices())
    assert trained == grid.CONFIGS[::-1]


def test_a_run_that_another_process_finishes_meanwhile_is_not_trained_again(tmp_path, monkeypatch, display):
    config, folder = grid.CONFIGS[0], grid.folder(tmp_path, 1)
    metrics = {"train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.5, "seconds": 1.0}
    lines = [{"epoch": number, **metrics} for number in (1, 2, 3)]

    def hold_late(folder, patience):
        recording.open_run(folder, config, {})
        for line in (*lines, {"outcome": "finished"}):
            recording.append(folder, line)
        return hold(folder)

    monkeypatch.setattr(runs, "hold", hold_late)
    runs.run_together({config: folder}, grid.DIGITS, {}, display, 10, Devices())
    assert records.read_run(folder).epochs == lines


def test_a_study_goes_on_with_the_same_data_alone(tmp_path, monkeypatch):
    grid.train_until_terminated(tmp_path, run=1, epoch=1, step=4)
    train = grid.DIGITS.train
    other = replace(grid.DIGITS, train=train | {"label": train["label"][::-1].copy()})
    monkeypatch.setattr(grid, "DIGITS", other)
    with pytest.raises(RecordsError, match=r"holds other runs \(1437 and 360 images of 10 classes, checksum"):
        grid.train(tmp_path)
    assert studied.describe(other, Devices())["classes"] == 10


class Engine:
    """One that runs nothing, and says of the first job that it was killed."""

    name, gpus = "ray", 1

    def __init__(self):
        self.jobs = []

    def accelerator(self):
        return None

    def run(self, jobs, out, say):
        self.jobs += jobs
        yield 0, "killed"


def test_an_engine_gets_what_a_node_may_not_know(tmp_path, monkeypatch, display):
    engine = Engine()
    monkeypatch.setenv("TFDS_DATA_DIR", "there")
    monkeypatch.chdir(tmp_path)
    execution = Execution(devices=1, deterministic=True)
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        studied.run_grid(grid.CONFIGS, grid.DIGITS, tmp_path, display, execution, engine)
    assert {job.execution.data_dir for job in engine.jobs} == {tmp_path / "there"}
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(studied, "keep_compilations", lambda: None)
    assert engine.jobs[0]() is None
    assert "--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"]
    assert records.read_run(grid.folder(tmp_path, 1)).ending == "finished"


def test_an_engines_task_waits_for_a_lock_that_outlives_its_holder(tmp_path, display, monkeypatch):
    """As on NFS that of a node that died: given up at once, Ray would have it for done."""
    monkeypatch.setattr(studied, "keep_compilations", lambda: None)
    folder, options = grid.folder(tmp_path, 1), ("ray", "", None)
    with ExitStack() as other:
        other.enter_context(hold(folder))
        monkeypatch.setattr(studied, "PATIENCE", 0.0)
        studied.Task(grid.CONFIGS[0], folder, Execution(devices=1), *options)()
        assert not (folder / "metrics.jsonl").exists()
        monkeypatch.setattr(studied, "PATIENCE", 60.0)
        threading.Timer(0.5, other.pop_all().close).start()
        studied.Task(grid.CONFIGS[0], folder, Execution(devices=1), *options)()
    assert records.read_run(folder).ending == "finished"
