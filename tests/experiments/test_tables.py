"""The sensitivity study's tables: means, what is marked as the best, and what is left out of both."""

from pathlib import Path

from adamlab import records
from adamlab.config import RunConfig
from adamlab.hyperparameters import Hyperparameters
from adamlab.protocol import PROTOCOLS
from experiments.tables import make_table
from tests.experiments.console import printed


def run(alpha, seed=0, train_loss=1.0, test_loss=1.0, accuracy=0.5, outcome="finished"):
    epoch = {"epoch": 1, "train_loss": train_loss, "test_loss": test_loss, "test_accuracy": accuracy}
    config = RunConfig("digits", "plain20", PROTOCOLS["smoke"], Hyperparameters(alpha=alpha), seed)
    return records.Run(Path(), config, {}, [epoch], {"outcome": outcome})


def rows(*runs):
    """The cells of each row of the table of these runs."""
    by_alpha = {r.config.hyperparameters.alpha: [s for s in runs if s.config.setting == r.config.setting] for r in runs}
    text = printed(lambda console: console.print(make_table("plain20", "adam", "alpha", by_alpha)))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_the_best_of_each_column_has_a_star():
    """The lowest training loss, the lowest test loss and the highest accuracy, each of another alpha."""
    low, default, high = rows(
        run(1e-4, train_loss=0.25, test_loss=2.0, accuracy=0.5),
        run(1e-3, train_loss=0.5, test_loss=1.0, accuracy=0.25),
        run(1e-2, train_loss=1.0, test_loss=4.0, accuracy=0.75),
    )
    assert low == ["0.0001", "0.2500*", "2.0000", "50.00%", ""]
    assert default == ["0.001", "0.5000", "1.0000*", "25.00%", "default"]
    assert high == ["0.01", "1.0000", "4.0000", "75.00%*", ""]


def test_a_diverged_run_is_said_and_not_in_the_mean():
    ((_, loss, _, _, notes),) = rows(run(1e-3, 0, 1.5), run(1e-3, 1, 1.0), run(1e-3, 2, 99.0, outcome="diverged"))
    # The mean of 1.5 and 1, and their standard deviation, 0.5 / sqrt(2).
    assert (loss, notes) == ("1.2500 ± 0.3536", "default, diverged (1 of 3)")


def test_a_value_that_lacks_a_seed_is_not_the_best():
    """Another process has only just begun it."""
    whole, lacking = rows(run(1e-3, 0, 2.0), run(1e-3, 1, 2.0), run(1e-2, 0, 1.0))
    assert whole[1] == "2.0000 ± 0.0000*"
    assert (lacking[1], lacking[-1]) == ("1.0000", "1 of 2 seeds")
