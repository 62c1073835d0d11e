"""The large-batch study as a person meets it, and what its cells are trained with."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.hyperparameters import ABLATIONS, OPTIMIZERS, Hyperparameters
from adamlab.protocol import PROTOCOLS, tuning
from experiments import cell_tables, large_batch
from experiments.study import fit_devices
from tests.experiments.console import printed

ROOT = Path(__file__).parents[2]
SMALL = ["--dataset=digits", "--protocol=smoke", "--optimizer=adam_lawn", "--seeds=1"]


def configs_of(*arguments, dataset="cifar10", protocol="lawn-paper"):
    return large_batch.make_configs(large_batch.parse_arguments(list(arguments)), dataset, PROTOCOLS[protocol])


def cells_of(configs):
    return {(config.optimizer, config.protocol.batch_size) for config in configs}


def test_tables_are_the_papers():
    """Table 1 has AdamP and Adam-LAWN at 256 and 10k; table 2 SGD, Adam and their LAWN variants at 256, 4k and 10k."""
    assert cells_of(configs_of("--table=1")) == {(o, b) for o in ("adamp", "adam_lawn") for b in (256, 10_000)}
    rows = ("sgd", "sgd_lawn", "adam", "adam_lawn")
    for dataset in ("cifar10", "cifar100"):
        configs = configs_of("--table=2", dataset=dataset)
        assert cells_of(configs) == {(o, b) for o in rows for b in (256, 4_000, 10_000)}
        assert len(configs) == 12 * 3  # "we report the average test metric over 3 runs"
        assert {(c.model, c.protocol.epochs, c.protocol.augment) for c in configs} == {("vgg19", 300, True)}


def test_lengths_of_the_warm_up_are_varied_like_those_of_the_free_phase():
    configs = configs_of("--optimizer=adam,adam_lawn", "--batch-size=256", "--warmup-epochs=2,10", "--seeds=1")
    lengths = [(c.optimizer, c.hyperparameters.warmup_epochs) for c in configs]
    assert lengths == [("adam", 2.0), ("adam", 10.0), ("adam_lawn", 2.0), ("adam_lawn", 10.0)]


def test_weight_decays_are_varied_where_an_optimizer_has_one():
    configs = configs_of("--optimizer=adam,adam_lawn", "--batch-size=256", "--weight-decay=0,1e-4", "--seeds=1")
    decays = [(c.optimizer, c.hyperparameters.weight_decay) for c in configs]
    assert decays == [("adam", 0.0), ("adam", 1e-4), ("adam_lawn", 0.0)]


def test_an_alpha_that_is_given_is_that_of_every_cell_and_with_tuning_the_grid():
    cells = ["--optimizer=sgd,sgd_lawn", "--batch-size=50,250", "--seeds=1"]
    assert [c.hyperparameters.alpha for c in configs_of(*cells, "--alpha=0.4", protocol="lawn-laptop")] == [0.4] * 4
    tuned = configs_of(*cells, "--alpha=0.4,1.2", "--tune", protocol="lawn-laptop")
    assert [c.hyperparameters.alpha for c in tuned] == [0.4, 1.2] * 4


def test_numbers_are_in_the_precision_that_is_asked_for():
    assert {config.precision for config in configs_of("--table=2", "--precision=bf16")} == {"bf16"}
    assert {config.precision for config in configs_of("--table=2")} == {"float32"}


def test_tuning_is_around_the_starting_point_not_around_what_it_found():
    """0.06 sqrt(250 / 50) = 0.134 and a third and three times that; what was found is 0.402."""
    configs = configs_of("--tune", "--optimizer=sgd_lawn", "--batch-size=250", protocol="lawn-laptop")
    assert [config.hyperparameters.alpha for config in configs] == [0.0447, 0.134, 0.402]


def test_tuning_looks_at_training_images_that_are_not_trained_on():
    protocol = tuning(PROTOCOLS["lawn-paper"], available=50_000)
    assert (protocol.train_images, protocol.test_images, protocol.evaluate_on) == (45_000, 5_000, "validation")
    # A subset need not be made smaller, since there are images beyond it.
    protocol = tuning(PROTOCOLS["lawn-laptop"], available=50_000)
    assert (protocol.train_images, protocol.test_images) == (2_000, 2_000)
    arguments = large_batch.parse_arguments(["--tune", "--batch-size=256"])
    configs = large_batch.make_configs(arguments, "cifar10", protocol)
    assert {config.seed for config in configs} == {0}
    for optimizer in ("adam", "adam_lawn"):
        alphas = sorted(config.hyperparameters.alpha for config in configs if config.optimizer == optimizer)
        assert alphas == pytest.approx([alphas[1] / 3, alphas[1], alphas[1] * 3], rel=0.01)
    study = records.run_folder(Path("out"), configs[0]).parts[1]
    assert study == "cifar10-lawn-laptop-tuning"


def test_devices_stand_in_the_configuration_where_they_decide_numbers_alone():
    def cut(*arguments, devices=4):
        parsed = large_batch.parse_arguments(["--optimizer=adam", "--batch-size=256,100", "--seeds=1", *arguments])
        configs = large_batch.make_configs(parsed, "cifar10", PROTOCOLS["lawn-paper"], devices)
        return [(config.microbatch, config.norm_group) for config in configs]

    assert cut() == cut(devices=1) == [(None, None), (None, None)]
    assert cut("--batch-norm=local") == [(None, 64), (None, 25)]
    assert cut("--batch-norm=local", devices=1) == [(None, None), (None, None)]
    # A batch that is not larger than a microbatch stays whole.
    assert cut("--batch-norm=local", "--microbatch=128") == [(128, 32), (None, 25)]


def test_as_many_devices_are_used_as_divide_every_batch():
    def fitted(available, batch_sizes, *arguments, engine="an engine"):
        parsed = large_batch.parse_arguments(list(arguments))
        return fit_devices(parsed, engine, available, batch_sizes, print)

    assert fitted(8, (256, 4_000, 10_000)) == 8
    assert fitted(8, (100,)) == fitted(8, (100, 50), engine=None) == 5
    assert fitted(8, (100, 256)) == 4
    assert fitted(8, (100, 256), "--microbatch=10") == 5
    assert fitted(8, (97,)) == 1
    assert fitted(8, (100,), "--devices=8") == 8  # refused later, by name


def test_grids_vary_what_an_optimizer_has():
    configs = configs_of("--optimizer=adam,adam_lawn", "--batch-size=256", "--free-epochs=0,1,5", "--seeds=1")
    assert [c.hyperparameters.free_epochs for c in configs if c.optimizer == "adam_lawn"] == [0, 1, 5]
    assert len(configs) == 4
    folders = {records.run_folder(Path("out"), config) for config in configs_of("--table=2", "--free-epochs=0,1,5")}
    assert len(folders) == (2 * 3 + 2 * 3 * 3) * 3


@pytest.mark.parametrize("protocol", ["lawn-paper", "lawn-laptop"])
@pytest.mark.parametrize("arguments", [[], ["--free-epochs=0,1,5"], ["--tune"]])
def test_an_ablation_has_all_but_the_constraint_of_its_lawn_variant(protocol, arguments):
    """At batch 250 of the laptop, SGD-LAWN was tuned to three times SGD's alpha."""
    for ablation, lawn in ABLATIONS.items():
        with_lawn, without = (
            configs_of(f"--optimizer={name}", "--batch-size=50,250", *arguments, protocol=protocol)
            for name in (lawn, ablation)
        )
        assert [replace(config, optimizer=lawn) for config in without] == with_lawn


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A real process, of a small net: Adam-LAWN on the digits at two batch sizes and two lengths of the free phase."""
    out = tmp_path_factory.mktemp("study")
    arguments = [*SMALL, "--batch-size=50,100", "--free-epochs=0,1", "--epochs=4", f"--out={out}"]
    command_line = [sys.executable, "-m", "tests.training.small", "experiments.large_batch", *arguments]
    process = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return out, process.stdout, process.stderr


def test_a_study_gives_records_a_table_and_figures(study):
    out, output, errors = study
    table = records.load(out)
    assert errors == ""
    assert len(table) == 2 * 2 * 4
    assert (table["outcome"] == "finished").all()
    assert set(table["optimizer"]) == {"adam_lawn"}
    assert (
        "4 runs of 4 epochs on digits: protocol lawn-smoke, 200 training and 100 test images, batch 50, 100" in output
    )
    figures = {Path(line.removeprefix("figure: ")) for line in output.splitlines() if line.startswith("figure: ")}
    assert {path.name for path in figures} == {"figure1-batch-size.png", "figure-free-epochs.png"}
    assert all(path.exists() for path in figures)


def test_the_table_shows_the_records(study):
    out, output, _ = study
    for run in records.read_runs(out):
        line = next(
            line for line in output.splitlines() if f"E_free {run.config.hyperparameters.free_epochs:g} " in line
        )
        assert f"{100 * run.epochs[-1]['test_accuracy']:.2f} (1)" in line


def write_run(out, config, accuracies, outcome="finished"):
    folder = records.run_folder(out, config)
    recording.open_run(folder, config, {})
    for epoch, accuracy in enumerate(accuracies, start=1):
        record = {"epoch": epoch, "train_loss": 1.0, "test_loss": 2.0, "test_accuracy": accuracy}
        recording.append(folder, record)
    recording.append(folder, {"outcome": outcome})


def test_the_papers_number_stands_beside_mean_standard_error_and_n(tmp_path):
    configs = configs_of("--optimizer=sgd", "--batch-size=256,10000")
    accuracies = [0.93, 0.94, 0.96]
    for config, accuracy in zip(configs, [*accuracies, 0.5, 0.6, 0.0], strict=True):
        write_run(tmp_path, config, [0.1, accuracy], "finished" if accuracy else "diverged")
    configs += configs_of("--optimizer=sgd", "--batch-size=4000")  # which another process has not begun to write
    text = printed(cell_tables.print_cells, tmp_path, configs)
    error = 100 * stdev(accuracies) / 3**0.5
    assert f"{100 * mean(accuracies):.2f} ± {error:.2f} (3), paper 93.99" in text
    assert "55.00 ± 5.00 (2), 1 diverged, paper 92.99" in text
    assert "SGD, batch 256: alpha 0.141, beta1 0.9, weight_decay 0.0005, warmup_epochs 10 (literature: " in text


def test_the_papers_number_is_said_to_be_of_another_network_or_longer_training(tmp_path):
    (papers, *_) = configs_of("--optimizer=sgd", "--batch-size=256")
    shorter = replace(papers, seed=1, protocol=replace(papers.protocol, epochs=200))
    for config, said in ((papers, False), (replace(papers, model="resnet34"), True), (shorter, True)):
        write_run(tmp_path, config, [0.9])
        assert ("The paper's numbers are" in printed(cell_tables.print_cells, tmp_path, [config])) == said


def test_tuning_prints_the_best_setting_first_and_divergence_last(tmp_path):
    protocol = tuning(PROTOCOLS["lawn-laptop"], 50_000)
    settings = [replace(Hyperparameters(), alpha=alpha) for alpha in (0.001, 0.003, 0.01, 0.03)]
    configs = [RunConfig("cifar10", "plain20", protocol, setting) for setting in settings]
    for config, accuracy in zip(configs, (0.3, 0.4, 0.0), strict=False):  # of the last one there is nothing yet
        write_run(tmp_path, config, [accuracy], "finished" if accuracy else "diverged")
    text = printed(cell_tables.print_tuning, tmp_path, configs)
    head, *lines = [line for line in text.splitlines() if line[0] in "┃│"]
    assert [title.strip() for title in head.split("┃")[1:-1]] == ["setting", "accuracy", "loss", "training loss"]
    assert [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines] == [
        ["alpha 0.003", "40.00%", "2.000", "1.000"],
        ["alpha 0.001", "30.00%", "2.000", "1.000"],
        ["alpha 0.01, 1 diverged", "", "", ""],
    ]


def test_tuning_with_seeds_ranks_settings_not_runs(tmp_path):
    """The best run is of a setting that diverged once, the next of one that is worse on average. The default's alpha is
    named as others are."""
    protocol = tuning(PROTOCOLS["lawn-laptop"], 50_000)
    configs = []
    for alpha, accuracies in ((0.001, (0.5, 0.1)), (0.003, (0.4, 0.4)), (0.01, (0.7, 0.0))):
        for seed, accuracy in enumerate(accuracies):
            configs.append(RunConfig("cifar10", "plain20", protocol, Hyperparameters(alpha=alpha), seed))
            write_run(tmp_path, configs[-1], [accuracy], "finished" if accuracy else "diverged")
    text = printed(cell_tables.print_tuning, tmp_path, configs)
    assert "Adam, batch 50: 3 settings, 2 seeds: means" in text
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [["alpha 0.003", "40.00%"], ["alpha 0.01, 1 diverged", "70.00%"], ["alpha 0.001", "30.00%"]]


def test_settings_that_differ_in_their_warm_up_are_told_apart(tmp_path):
    configs = configs_of("--optimizer=adam", "--batch-size=256", "--warmup-epochs=2,10", "--seeds=2")
    for config, accuracy in zip(configs, (0.9, 0.9, 0.5, 0.5), strict=True):
        write_run(tmp_path, config, [accuracy])
    table = printed(cell_tables.print_cells, tmp_path, configs)
    for line in ("Adam, warm-up 2 │ 90.00 ± 0.00 (2)", "Adam, warm-up 10 │ 50.00 ± 0.00 (2)"):
        assert line in " ".join(table.split())
    found = printed(cell_tables.print_tuning, tmp_path, configs)
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in found.splitlines() if line.startswith("│")]
    assert rows == [["warmup_epochs 2", "90.00%"], ["warmup_epochs 10", "50.00%"]]


def test_what_is_varied_within_a_cell_is_said_and_where_its_own_is_from(tmp_path):
    """A cell's own weight decay on the paper's scale is 5e-4, as SGD's."""
    configs = configs_of("--optimizer=adam", "--batch-size=256", "--weight-decay=0,5e-4", "--seeds=1")
    for config, accuracy in zip(configs, (0.5, 0.9), strict=True):
        write_run(tmp_path, config, [accuracy])
    text = " ".join(printed(cell_tables.print_cells, tmp_path, configs).split())
    for line in ("Adam, weight decay 0 │ 50.00 (1)", "Adam, weight decay 0.0005 │ 90.00 (1)"):
        assert line in text
    assert "weight_decay 0, warmup_epochs 10 (varied from the cell's own)" in text
    assert "weight_decay 0.0005, warmup_epochs 10 (literature: the default of Kingma and Ba" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=3"], "invalid choice: 3"),
        (["--table=1", "--optimizer=adam"], "give --table or --optimizer, got 1 and adam"),
        (
            ["--optimizer=lars"],
            f"--optimizer must be one of {', '.join(OPTIMIZERS)}, got 'lars'",
        ),
        (
            ["--dataset=imagenet2012", "--data-dir=/nowhere"],
            "imagenet2012 is not prepared in /nowhere. ImageNet has to",
        ),
        (["--alpha=0.1,0.2"], "--alpha must be one number, but with --tune, got '0.1,0.2'"),
        (["--alpha=fast"], "--alpha must be numbers separated by commas, got 'fast'"),
        (["--alpha=-1"], "alpha must be a finite number > 0, got -1.0"),
        (["--optimizer="], f"{', '.join(OPTIMIZERS)}, got ''"),
        (["--batch-size=many"], "--batch-size must be numbers separated by commas, got 'many'"),
        (["--batch-size=2.5"], "--batch-size must be whole numbers >= 1, got '2.5'"),
        (["--batch-size=0"], "--batch-size must be whole numbers >= 1, got '0'"),
        (["--batch-size=nan"], "--batch-size must be whole numbers >= 1, got 'nan'"),
        (
            ["--optimizer=adam", "--free-epochs=1"],
            "--free-epochs is for adam_lawn, adam_three_phase, ",
        ),
        (
            ["--optimizer=adam_lawn", "--weight-decay=1"],
            "--weight-decay is for adam, adamw, ",
        ),
        (["--free-epochs=-1"], "free_epochs must be a finite number >= 0, got -1.0"),
        (
            [*SMALL, "--devices=1", "--free-epochs=3"],
            "free_epochs + warmup_epochs must be less than the 3 epochs, got 3.0 + 1.0",
        ),
        ([*SMALL, "--batch-size=500"], "batch_size must be at most the number of training images, 200, got 500"),
        (["--seeds=0"], "--seeds must be from 1 to 1000, got 0"),
        (["--seeds=1001"], "--seeds must be from 1 to 1000, got 1001"),
        (["--microbatch=0"], "microbatch must be at least 1, got 0"),
        (
            ["--batch-size=256", "--microbatch=100"],
            "microbatch must divide the batch of 256, such as 64 or 128, got 100",
        ),
        (["--num-processes=2"], "need each other and --coordinator=host:port, got --num-processes=2"),
        # 25 divides smoke's batches, not those of the tables.
        (["--dataset=digits", "--protocol=smoke", "--microbatch=25", "--devices=5"], "devices must be from 1 to 4"),
        ([*SMALL, "--devices=5"], "devices must be from 1 to 4; JAX_NUM_CPU_DEVICES makes several of a CPU, got 5"),
        ([*SMALL, "--devices=4"], "batch_size must be a multiple of the 4 devices, such as 48 or 52, got 50"),
        # Of 1,437 training images a tenth is held out at most.
        ([*SMALL, "--tune", "--test-images=300"], "test_images must be at most 143 for --tune on digits, got 300"),
        (["--checkpoint-minutes=nan"], "--checkpoint-minutes must be at least 0, got nan"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments, message, refusal):
    assert message in refusal(large_batch.main, arguments)


def test_tuning_takes_one_seed_where_none_is_asked_for_and_tables_three():
    def seeds(*arguments):
        return {config.seed for config in configs_of("--optimizer=adam", "--batch-size=256", *arguments)}

    assert (seeds("--tune"), seeds("--tune", "--seeds=2"), seeds()) == ({0}, {0, 1}, {0, 1, 2})
