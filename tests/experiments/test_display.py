"""What a person is told before a grid runs, and of a run that ends."""

import numpy as np
import pytest

from adamlab.config import RunConfig
from adamlab.data import ArrayDataset
from adamlab.protocol import Protocol
from adamlab.training.checkpoint import Position
from experiments.display import Display, introduce
from tests.experiments.console import printed


def dataset(side):
    """Two images of so many pixels a side."""
    split = {"image": np.zeros((2, side, side, 3), np.uint8), "label": np.zeros(2, np.int32)}
    return ArrayDataset("synthetic", split, split, 10, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("models", "side", "minutes"),
    [
        # Ten epochs of 13,000 images and a third of 7,800: 156,000, at 260 a second.
        (["plain20"], 32, 10),
        (["resnet34"], 32, 10),
        (["vgg19"], 32, 43),  # at 60 a second, 43.3
        (["plain20", "vgg19"], 32, 53),
        (["plain20", "plain20"], 16, 5),  # of a quarter of the pixels, each a quarter of the time
    ],
)
def test_the_time_on_a_cpu_is_that_of_all_runs_images(models, side, minutes):
    protocol = Protocol("laptop", train_images=13_000, test_images=7_800, epochs=10)
    configs = [RunConfig("synthetic", model, protocol, seed=seed) for seed, model in enumerate(models)]
    assert f"images, batch 100; about {minutes} min on two CPU cores" in printed(
        introduce, configs, dataset(side), False, None
    )
    assert " min " not in printed(introduce, configs, dataset(side), False, "a GPU")


def test_where_a_run_diverged_is_said_in_steps_and_epochs():
    config = RunConfig("synthetic", "plain20", Protocol("laptop", 1_000, 100, epochs=10))

    def follow(console):
        display = Display(console)
        with display.running([config]):
            display.start([config], Position())
            display.end(config, {"outcome": "diverged", "step": 37, "epoch": 4})

    assert "plain20, default, seed 0: diverged at step 37, epoch 4\n" in printed(follow)
