"""The main command as a person meets it: what a whole study shows and leaves; bad input in one line."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from adamlab import data, records
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import Protocol
from adamlab.training.checkpoint import Position
from experiments import sensitivity
from experiments.display import Display
from experiments.options import choose_protocol
from experiments.tables import print_tables
from plots.sensitivity import draw
from tests.experiments.processes import ROOT, SHAPE, SMALL, TINY, finish, start
from tests.faults.study import recorded


def test_a_study_gives_records_a_table_and_figures(study):
    out, output, errors = study
    table = records.load(out)
    assert sorted(table["alpha"].unique()) == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert len(table) == 5 * 2  # five values, two epochs
    assert (table["outcome"] == "finished").all()
    assert errors == ""  # JAX, absl and tensorflow-datasets keep quiet
    first, *rest = output.splitlines()
    assert "5 runs of 2 epochs on digits: protocol smoke" in first
    assert sum("epoch 2/2" in line for line in rest) == 5
    assert "default" in output
    figures = [line.removeprefix("figure: ") for line in rest if line.startswith("figure: ")]
    assert len(figures) == 3  # training loss, test loss, test accuracy; nothing was perturbed
    assert all(Path(path).exists() and Path(path).with_suffix(".svg").exists() for path in figures)


def test_the_table_shows_the_records(study):
    out, output, _ = study
    for run in records.read_runs(out):
        last = run.epochs[-1]
        rows = [line.split() for line in output.splitlines() if "│" in line]
        row = next(row for row in rows if row[1] == f"{run.config.hyperparameters.alpha:g}")
        shown = [cell.rstrip("*") for cell in row]
        assert f"{last['train_loss']:.4f}" in shown
        assert f"{last['test_accuracy']:.2%}" in shown


def test_another_configuration_in_the_same_folder_is_refused(study):
    out, _, _ = study
    before = recorded(out)
    status, _, errors = finish(["--param=alpha", *TINY, "--epochs=3", f"--out={out}"])
    assert status == 2
    assert errors.count("\n") == 1
    assert "epochs 3 here, 2 there" in errors
    assert recorded(out) == before


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_the_time_left_whatever_its_width(width):
    """The run's name is what is cut."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    (config,) = configs_of("--param=epsilon", "--values=1e-4", "--model=resnet34")
    display = Display(console)
    with display.running([config]):
        display.start([config], Position())
        display.step(1, 1, 1.234)
        display.epoch(config, {"test_accuracy": 0.301})
        display.step(2, 1, 1.234)
        console.print(display._progress.get_renderable())
    assert isinstance(console.file, io.StringIO)
    plain = re.sub(r"\x1b\[[\d;?]*\w", "", console.file.getvalue())
    line = [line for line in plain.splitlines() if "epoch 2/15" in line][-1]
    assert re.search(r"epoch 2/15, loss 1\.234, accuracy 30\.1% .*\d:\d\d:\d\d left \d:\d\d:\d\d$", line.rstrip())


def test_results_are_shown_while_another_process_is_at_some_runs(study, tmp_path):
    """One run has begun and has no epoch yet, of another there is nothing, of a third the first epoch."""
    shutil.copytree(study[0], tmp_path, dirs_exist_ok=True)
    begun, absent, halfway, *_ = sorted(path for path in tmp_path.rglob("metrics.jsonl"))
    begun.write_text("")
    shutil.rmtree(absent.parent)
    halfway.write_text(halfway.read_text().splitlines(keepends=True)[0])
    parsed = sensitivity.parse_arguments(["--param=alpha", *SMALL])
    protocol = records.read_runs(tmp_path)[0].config.protocol
    grid = sensitivity.make_grid(parsed, protocol)
    shown = io.StringIO()
    configs = sensitivity.make_configs(parsed, grid, "digits", protocol)
    print_tables(Console(file=shown, width=200), tmp_path, configs, grid)
    rows = [line for line in shown.getvalue().splitlines() if "│" in line and "alpha" not in line]
    assert sum("unfinished (1 of 1)" in row for row in rows) == 2
    assert not any("*" in row for row in rows if "unfinished" in row or " - " in row)
    assert any("*" in row for row in rows)
    assert len(draw(tmp_path)) == 6


HAS_CIFAR10 = Path(os.environ.get("TFDS_DATA_DIR") or "/nowhere", "cifar10").exists()


@pytest.mark.skipif(not HAS_CIFAR10, reason="needs a prepared CIFAR-10 in TFDS_DATA_DIR")
def test_real_cifar10(tmp_path):
    arguments = [*TINY, "--param=alpha", "--values=1e-3", "--dataset=cifar10", f"--out={tmp_path}"]
    status, output, errors = finish(arguments, small=True)
    assert status == 0, errors
    assert "on cifar10: protocol smoke, 10 training and 10 test images" in output
    assert (records.load(tmp_path)["dataset"] == "cifar10").all()


def test_digits_in_place_of_cifar10_are_said_loudly(tmp_path):
    """On the terminal, in the records, and in the figures, which plots' own tests look at."""
    arguments = ["--param=alpha", "--values=1e-3,1e-2", "--protocol=smoke", "--model=plain20", *SHAPE]
    no_network = os.environ | {"https_proxy": "http://127.0.0.1:9"}  # where nothing listens
    process = start([*arguments, f"--out={tmp_path}", f"--data-dir={tmp_path / 'data'}"], small=True, env=no_network)
    output, _ = process.communicate()
    run = records.read_runs(tmp_path)[0]
    assert "NOT CIFAR-10" in output
    assert "NOT CIFAR-10" in run.provenance["note"]
    assert run.config.dataset == "digits"


def test_devices_that_do_not_divide_a_batch_are_left_out_and_said(tmp_path):
    arguments = ["--param=alpha", "--values=1e-3", *SMALL, "--epochs=1", f"--out={tmp_path}"]
    process = start(arguments, small=True, env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"})
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "5 of 8 devices are used" in output
    (run,) = records.read_runs(tmp_path)
    assert (run.ending, run.provenance["device"]) == ("finished", "5 x cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param=gamma"], "invalid choice: 'gamma' (choose from"),
        (["--dataset=cifar01", "--data-dir=/nowhere"], "cifar01 is not prepared in /nowhere. auto, cifar10, cifar100"),
        (["--dataset=digits", "--protocol=smoke", "--image-size=64"], "--image-size is for photographs, got digits"),
        (["--dataset=digits", "--protocol=smoke", "--workers=2"], "--workers is for photographs, got digits"),
        (["--dataset=digits", "--protocol=smoke", "--skip-corrupt"], "--skip-corrupt is for photographs, got digits"),
        (["--dataset=digits", "--workers=-1"], "--workers must be at least 0, got -1"),
        (["--model=alexnet"], f"--model must be one of {', '.join(sensitivity.MODELS)}, got 'alexnet'"),
        (["--model="], f"--model must be one of {', '.join(sensitivity.MODELS)}, got ''"),
        (["--out="], "--out: must be a path, got ''"),
        (["--model=plain20", "--stem=cifar"], "--stem is for resnet34, got --model=plain20"),
        (["--model=resnet34", "--downsample=first"], "--downsample is for plain20, got --model=resnet34"),
        (["--param=alpha", "--values=0"], "alpha must be a finite number > 0, got 0.0"),
        (["--param=alpha", "--values=-1"], "alpha must be a finite number > 0, got -1.0"),
        (["--param=alpha", "--values=nan"], "alpha must be a finite number > 0, got nan"),
        (["--param=beta1", "--values=0.9,1"], "beta1 must be in [0, 1), got 1.0"),
        (["--param=beta2", "--values=-0.1"], "beta2 must be in [0, 1), got -0.1"),
        (["--param=epsilon", "--values=-1e-8"], "epsilon must be a finite number >= 0, got -1e-08"),
        (["--param=epsilon", "--values=small"], "--values must be numbers separated by commas, got 'small'"),
        (["--param=all", "--values=1"], "--values needs one --param (alpha, beta1, beta2, epsilon, free_epochs), got"),
        (
            ["--param=epsilon", "--study=perturbation"],
            "--study=perturbation of adam varies alpha, beta1, beta2, got 'epsilon'",
        ),
        (["--optimizer=adam,rmsprop"], f"--optimizer must be one of {', '.join(sensitivity.CONSTANT)}, got"),
        (["--optimizer=sgd", "--param=beta2"], "--study=magnitude of sgd varies alpha, beta1, got 'beta2'"),
        (["--param=free_epochs"], "of adam varies alpha, beta1, beta2, epsilon, got 'free_epochs'"),
        (["--optimizer=adam_lawn", "--param=free_epochs", "--values=-1"], "free_epochs must be a finite number >= 0"),
        (
            ["--optimizer=adam_lawn", "--param=free_epochs", "--values=3", "--devices=1", *SMALL],
            "free_epochs must be at most the 2 epochs, got 3.0",
        ),
        (["--optimizer=adamp", "--epsilon-placement=inside"], "inside is for adam, adam_lawn, adam_three"),
        (["--vmap=0"], "--vmap must be at least 1, got 0"),
        (["--vmap=2", "--launcher=ray"], "--vmap is for --launcher=local, got --launcher=ray"),
        (["--vmap=2", "--devices=2", *SMALL], "--vmap=2 trains on one device: needs --devices=1, got 2"),
        (["--trace=-1"], "trace_every must be at least 0, got -1"),
        (["--seeds=0"], "--seeds must be from 1 to 1000, got 0"),
        (["--seeds=1001"], "--seeds must be from 1 to 1000, got 1001"),
        (["--epochs=0", *SMALL], "epochs must be at least 1, got 0"),
        (["--epochs=many"], "invalid int value: 'many'"),
        (["--batch-size=201", *SMALL], "batch_size must be at most the number of training images, 200, got 201"),
        (["--train-images=2000", *SMALL], "train_images must be at most 1437 for digits, got 2000"),
        (["--wrong"], "unrecognized arguments: --wrong"),
        ([*SMALL, "--devices=1", "--out=/proc/results"], "cannot write results to /proc/results"),
        (["--dataset=cifar10", "--data-dir=/proc/data"], "cifar10"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, message, refusal):
    assert message in refusal(sensitivity.main, arguments)


def configs_of(*arguments):
    parsed, protocol = sensitivity.parse_arguments(list(arguments)), Protocol("paper", 50_000, 10_000)
    return sensitivity.make_configs(parsed, sensitivity.make_grid(parsed, protocol), "cifar10", protocol)


def test_the_default_setting_is_one_run_for_all_parameters():
    """Four grids of five values share the default: 17 settings per network; perturbations: 3 x 4 + 1 = 13."""
    assert len(configs_of("--param=all")) == 17 * 2
    assert len(configs_of("--param=all", "--study=perturbation")) == 13 * 2
    assert len(configs_of("--param=all", "--seeds=3", "--model=plain20")) == 17 * 3
    both = {*configs_of("--param=all"), *configs_of("--param=all", "--study=perturbation")}
    assert len(both) == (17 + 13 - 1) * 2


def test_an_optimizer_varies_what_it_has_around_its_own_defaults():
    """Adam-LAWN: Adam's 17 settings, around one free epoch, and four other lengths. SGD: alpha and beta1 alone."""
    lawn = configs_of("--optimizer=adam_lawn", "--model=plain20")
    assert len(lawn) == 17 + 4
    assert {c.hyperparameters.free_epochs for c in lawn} == {0, 1, 2, 5, 10}
    sgd = configs_of("--optimizer=sgd", "--model=plain20", "--param=alpha")
    assert [c.hyperparameters.alpha for c in sgd] == [0.1, 1e-3, 1e-2, 1.0, 10.0]
    assert len(configs_of("--optimizer=adam,adam_lawn,sgd", "--model=plain20")) == 17 + 21 + 9
    # Every run lies in a folder of its own.
    configs = configs_of("--optimizer=adam,adam_lawn,sgd", "--seeds=2")
    assert len({records.run_folder(Path("results"), config) for config in configs}) == len(configs)


def test_a_batch_goes_with_the_images_that_are_asked_for_with_it():
    """Not with the protocol's batch of 50, which is none of the user's."""
    digits = data.load("digits")
    arguments = sensitivity.parse_arguments([*SMALL, "--train-images=20", "--batch-size=10"])
    protocol = choose_protocol(arguments, digits, False, batch_size=arguments.batch_size)
    assert (protocol.train_images, protocol.batch_size, protocol.test_images) == (20, 10, 100)
    with pytest.raises(ConfigError, match="batch_size must be at most the number of training images, 20, got 50"):
        choose_protocol(arguments, digits, False)


def test_free_phases_longer_than_the_training_are_left_out():
    arguments = sensitivity.parse_arguments(["--optimizer=adam_lawn", "--param=free_epochs"])
    grid = sensitivity.make_grid(arguments, Protocol("laptop", 3_000, 1_000, epochs=5))
    assert grid == {("adam_lawn", "free_epochs"): (0.0, 1.0, 2.0, 5.0)}


def test_options_of_a_network_go_to_that_network_alone():
    for config in configs_of("--param=alpha", "--stem=cifar", "--downsample=first"):
        expected = ("cifar", None) if config.model == "resnet34" else (None, "first")
        assert (config.stem, config.downsample) == expected


def test_numbers_are_in_the_precision_that_is_asked_for():
    assert {config.precision for config in configs_of("--param=alpha", "--precision=bf16")} == {"bf16"}
    assert {config.precision for config in configs_of("--param=alpha")} == {"float32"}


def test_a_default_that_is_spelled_out_is_the_same_run():
    assert configs_of("--param=alpha", "--stem=imagenet", "--downsample=last") == configs_of("--param=alpha")


@pytest.mark.parametrize("variable", ["JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "JAX_ENABLE_X64"])
def test_a_jax_that_cannot_start_is_one_line(tmp_path, variable):
    process = start(["--param=alpha", *SMALL, f"--out={tmp_path}"], env=os.environ | {variable: "abacus"})
    _, errors = process.communicate()
    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: JAX cannot start: ")
    assert "abacus" in errors


def test_no_devices_are_none_that_jax_can_start_with(tmp_path, monkeypatch, refusal):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "0")
    said = refusal(sensitivity.main, [*SMALL, f"--out={tmp_path}"])
    assert "JAX_NUM_CPU_DEVICES must be a number of devices, at least 1, got '0'" in said


def test_a_file_is_no_results_folder(tmp_path_factory, refusal):
    file = tmp_path_factory.mktemp("elsewhere") / "file"
    file.write_text("kept")
    assert f"--out must be a folder, got {file}, which is a file" in refusal(
        sensitivity.main, [*SMALL, f"--out={file}"]
    )
    assert file.read_text() == "kept"
    long = file.with_name("a" * 300)
    assert f"cannot read {long}" in refusal(sensitivity.main, [*SMALL, f"--out={long}"])


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from experiments import sensitivity\n"
        "try: sensitivity.main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'jax', 'flax', 'optax', 'orbax', 'pandas', 'matplotlib', 'tensorflow_datasets', 'sklearn'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "figures 1, 3, 4" in result.stdout
