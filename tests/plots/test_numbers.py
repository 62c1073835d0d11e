"""The tables of what was run, of what came out, and of where it is from."""

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.protocol import Protocol
from plots import numbers
from tests.claims import worlds
from tests.plots import cells, curves


def papers_column(table):
    """The paper's numbers, by the names of the rows."""
    return {row[0]: row[table.header.index("the paper's, %")] for row in table.rows}


def test_settings_are_counted_apart_from_their_seeds(tmp_path):
    for seed in (0, 1):
        for alpha in (1e-3, 1e-2, 1e-1):
            curves.write_run(tmp_path, alpha=alpha, seed=seed)
    (row,) = numbers.what_was_run(records.read_runs(tmp_path)).rows
    assert row == ["plain20, Adam", "cifar10", "5,000", "100", "3", "3", "2", "6 finished"]


def test_the_lawn_papers_numbers_stand_beside_its_batches(tmp_path):
    """Table 2: Adam has 93.48 % at 256 and 92.93 % at 4,000, SGD 93.99 % at 256; batches of 50 are ours."""
    for optimizer, batch_size in (("adam", 50), ("adam", 256), ("adam", 4_000), ("sgd", 256)):
        cells.write_run(tmp_path, optimizer, batch_size, train_images=4_000)
    assert papers_column(numbers.accuracies(records.read_runs(tmp_path))) == {
        "vgg19, Adam, batch 50": "",
        "vgg19, Adam, batch 256": "93.48",
        "vgg19, Adam, batch 4,000": "92.93",
        "vgg19, SGD, batch 256": "93.99",
    }


def test_the_sensitivity_papers_numbers_are_of_its_data_set_alone(tmp_path):
    """Appendix C: roughly 75 % at ResNet-34's alpha 1e-3; of the plain net's none is said by itself."""
    cells = ("cifar10", "resnet34", "about 75"), ("cifar10", "plain20", ""), ("digits", "resnet34", "")
    for dataset, model, said in cells:
        for alpha in (1e-3, 1e-2):
            curves.write_run(tmp_path / dataset, model=model, alpha=alpha, dataset=dataset)
        table = numbers.last_epoch(records.read_runs(tmp_path / dataset), model, "adam", "magnitude")
        assert papers_column(table) == {"alpha 1e-3, default": said, "alpha 0.01": ""}


def test_a_continued_run_is_from_where_it_began_and_from_where_it_went_on(tmp_path):
    there, here = (
        {"commit": commit, "device": "1 x cpu", "system": "Linux", "versions": {"jax": version}}
        for commit, version in (("abc1234", "0.8"), ("def5678", "0.9"))
    )
    record = {"epoch": 1, "train_loss": 1.0, "test_loss": 1.0, "test_accuracy": 0.5}
    for seed in (0, 1):
        config = RunConfig("cifar10", "plain20", Protocol("laptop", 5_000, 2_000), seed=seed)
        run = worlds.write_run(tmp_path, config, [record], provenance=there)
    recording.resume(run.folder, 1, here, anew=False)
    assert numbers.provenance(records.read_runs(tmp_path)).rows == [
        ["abc1234", "2", "1 x cpu", "Linux", "jax 0.8"],
        ["def5678", "1", "1 x cpu", "Linux", "jax 0.9"],
    ]
