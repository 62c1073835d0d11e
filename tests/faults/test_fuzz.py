"""Command lines at random: what is rejected gets one line and status 2; the rest starts.

The studies' own `main` runs, in process, up to the grid of runs that it would train; how a run of it starts is traced.
Only the real CIFAR, clusters and the other processes of a job are not looked for.
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adamlab import command, data
from adamlab.config import RunConfig
from adamlab.records import run_folder
from adamlab.training.build import build_program
from adamlab.training.optimizers import traced
from experiments import grid
from experiments.execution import Execution
from experiments.launch import Engine, Ray

DIGITS = data.load("digits")
# What an option may be given in place of what it expects: extreme, senseless, taken for something else.
NUMBERS = ["1", "2", "50", "0", "-1", "1e3", "1e-3", "0.5", "nan", "inf", "-inf", "1e999", "1_0", "٣", "0x10", "²"]
WORDS = ["", ",", "all", "none", "../..", "/etc/passwd", "a b", "--", "%s", "{0}", "$(id)", "\x00", "é", "[red]", "[/]"]
WORDS += ["a\nb", "\r", "\x1b[31m", "\udcff"]
# What it expects, about, up to the limits and a little further.
COMMON = {
    "--dataset": ["digits", "cifar10", "auto", "mnist"],
    "--protocol": ["smoke", "laptop", "paper", "auto", "lawn-smoke"],
    "--train-images": ["1", "200", "1437", "1438"],
    "--test-images": ["1", "100", "360", "361"],
    "--epochs": ["1", "3", "30", "0"],
    "--seeds": ["1", "2", "0"],
    "--precision": ["float32", "bf16", "float64"],
    "--trace": ["0", "1", "4", "-1"],
    "--optimizer": ["adam", "adam_lawn", "adamw", "adamp", "sgd", "sgd_lawn", "lamb_lawn", "adam,sgd", "adam,", "Adam"],
    "--batch-size": ["1", "10", "100", "200", "201", "50,100"],
    "--checkpoint-minutes": ["0", "0.5", "10", "-1"],
    "--image-size": ["64", "0"],
    "--workers": ["0", "2", "-1"],
    "--skip-corrupt": [None],
    "--launcher": ["local", "ray", "slurm", "kubernetes"],
    "--slurm": ["timeout_min=5", "cluster=local,timeout_min=5", "timeout_min=x", "mem_gb=", "color=red", "="],
    "--devices": ["1", "2", "3", "4", "5", "0"],
    "--spmd": ["pmap", "shard_map", "vmap"],
    "--batch-norm": ["global", "local", "none"],
    "--microbatch": ["1", "10", "25", "50", "100", "0"],
    "--vmap": ["1", "2", "100", "0"],
    "--coordinator": ["auto", "host:1", "host", ":", "10.0.0.1:99999"],
    "--num-processes": ["1", "2", "0"],
    "--process-id": ["0", "1", "-1"],
    "--data-dir": ["data", "/proc/data", "~"],
    "--out": ["results", "/proc/results", "../..", "~"],
}
STUDIES = {
    "sensitivity": {
        "--param": ["alpha", "beta1", "beta2", "epsilon", "free_epochs", "all", "gamma"],
        "--study": ["magnitude", "perturbation", "both"],
        "--values": ["1", "1e-3,1e-2", "0.9,0.99", "1e-3,,1", "1e-45", "3e38", "1e39"],
        "--model": ["plain20", "resnet34", "plain20,resnet34", "vgg19"],
        "--stem": ["imagenet", "cifar", "other"],
        "--downsample": ["last", "first", "middle"],
        "--epsilon-placement": ["inside", "outside", "above"],
        "--report": [None],
    },
    "large_batch": {
        "--table": ["1", "2", "3"],
        "--free-epochs": ["0", "0,1,2", "0.5", "1,x"],
        "--weight-decay": ["1e-4", "0,1e-4", "-1"],
        "--model": ["plain20", "resnet34", "vgg19", "plain20,vgg19"],
        "--tune": [None],
    },
}


@st.composite
def command_lines(draw, study):
    """Some of a study's options, each with a value that it expects or with any."""
    options = COMMON | STUDIES[study]
    line = []
    for name in draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=6)):
        expected = st.sampled_from(options[name])
        any_text = st.sampled_from(WORDS + NUMBERS) | st.text(max_size=8)
        value = draw(any_text if draw(st.integers(0, 7)) == 7 else expected)
        line += [name] if value is None else [f"{name}={value}"] if draw(st.booleans()) else [name, value]
    # Of this process' four devices one is enough for any batch.
    return draw(st.sampled_from([["--devices=1"]] * 4 + [[]])) + line + draw(st.sampled_from([[]] * 8 + [["stray"]]))


class Reached(BaseException):
    """A command line was accepted: all that remains is to train."""

    def __init__(self, configs: Sequence[RunConfig], execution: Execution, engine: Engine | None) -> None:
        super().__init__()
        self.configs, self.execution, self.engine = configs, execution, engine


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """An empty folder; `main` trains nothing there, has the digits for CIFAR-10, and finds no other process."""

    def stop(configs, dataset, out, display, execution, engine):
        raise Reached(configs, execution, engine)

    def load(self, name):
        return DIGITS if name in ("auto", "cifar10", "digits") else data.load(name, self.data_dir)

    def nobody_answers(*arguments, **options):
        raise RuntimeError("DEADLINE_EXCEEDED:\nnobody answers")

    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("nowhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(home))
        patch.setenv("TFDS_DATA_DIR", str(folder / "data"))
        patch.setattr(command, "_silence", lambda: None)  # it is for one `main` in a process
        patch.setattr(grid, "run_grid", stop)
        patch.setattr(Execution, "load", load)
        patch.setattr(jax.distributed, "initialize", nobody_answers)
        patch.setattr(Ray, "_nodes", lambda self: [{"CPU": 2.0}])
        yield folder


def check_command_line(study: str, line: list[str], nowhere: Path) -> None:
    """A line is refused in one line with status 2, or stands for runs that can be written down and start."""
    errors, before = io.StringIO(), sys.argv
    sys.argv = [study, *line]
    main = import_module(f"experiments.{study}").main
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            command.run_main(main, f"experiments.{study}")
    except (Reached, SystemExit) as end:
        ending = end
    finally:
        sys.argv = before
    assert list(nowhere.iterdir()) == []  # nothing half-written
    if isinstance(ending, Reached):
        check_runs(ending.configs)
        if ending.engine is None:  # else its devices are elsewhere
            check_start(ending.configs[0], ending.execution)
    else:
        assert ending.code == 2
        assert errors.getvalue().startswith("error: ")
        assert errors.getvalue().count("\n") == 1


def check_runs(configs: Sequence[RunConfig]) -> None:
    """Runs can be written down, fit the data, and lie where results do."""
    assert configs
    for config in configs:
        assert RunConfig.from_dict(config.to_dict()) == config
        protocol = config.protocol
        assert 1 <= protocol.batch_size <= protocol.train_images <= len(DIGITS.train["label"])
        assert 1 <= protocol.test_images <= len(DIGITS.test["label"])
        folder = run_folder(Path("/results"), config)
        assert folder.is_relative_to("/results")
        assert ".." not in folder.parts
        assert len(folder.relative_to("/results").parts) == 4


def check_start(config: RunConfig, execution: Execution) -> None:
    """The run's program can be built for its devices, and its first state be traced."""
    facts = DIGITS.num_classes, DIGITS.train["image"].shape[1:], DIGITS.mean, DIGITS.std
    program = build_program(config, *facts, execution.find_devices())
    state = jax.eval_shape(program.init, np.int32(config.seed), traced(config))
    assert jax.tree.leaves(state)


FEW = settings(max_examples=60, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=1_000, derandomize=False)


@pytest.mark.parametrize("study", STUDIES)
@FEW
@given(data=st.data())
def test_a_command_line_is_refused_in_one_line_or_stands_for_runs(nowhere, study, data):
    check_command_line(study, data.draw(command_lines(study)), nowhere)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
@MANY
@given(data=st.data())
def test_many_command_lines(nowhere, study, data):
    check_command_line(study, data.draw(command_lines(study)), nowhere)
