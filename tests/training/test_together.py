"""Several runs in one program: what each is alone, one that diverges, one that is stopped and continued."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab.config import RunConfig
from adamlab.data.augment import crop_and_flip
from adamlab.hyperparameters import ConfigError, Hyperparameters
from adamlab.protocol import PROTOCOLS, Protocol
from adamlab.training import Diverged, Interrupted, feed, train, train_together
from adamlab.training.checkpoint import Checkpoints, Position
from adamlab.training.optimizers import Recipe
from adamlab.training.parallel import Devices, compile_training
from adamlab.training.step import make_init, make_train_step
from tests.faults.study import without_times
from tests.training import small

PROTOCOL = Protocol("smoke", train_images=200, test_images=70, batch_size=50, epochs=2)
FIRST, SECOND = (RunConfig("digits", "small", PROTOCOL, Hyperparameters(alpha=alpha)) for alpha in (1e-4, 3e-4))
RUNS = [FIRST, SECOND, replace(FIRST, seed=1)]


@pytest.fixture(autouse=True, scope="module")
def one_step_chunks():
    """An epoch of four chunks instead of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "MAX_CHUNK", 1)
        yield


@pytest.fixture(scope="module")
def whole(digits, one_step_chunks):
    """The records of the three runs, trained together."""
    return by_run(train_together(RUNS, digits, [None] * 3))


def by_run(results, found=None):
    found = found or ([], [], [])
    for place, result in results:
        found[place].append(result)
    return found


def assert_alike(ours, theirs, tolerance):
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("epoch", "train_loss", "test_loss"):
            assert mine[name] == pytest.approx(other[name], rel=tolerance), name
        assert mine["test_accuracy"] == pytest.approx(other["test_accuracy"], abs=1.1 / PROTOCOL.test_images)


@pytest.mark.parametrize("optimizer", ["adam_lawn", "sgd_lawn"])
def test_fifty_steps_of_each_are_those_of_one_alone(optimizer):
    """Of other hyperparameters, weights, images and augmentation, on a smooth net."""
    recipe = Recipe(optimizer, "phases")
    step = make_train_step(small.Net(), recipe, small.NORMALISE)
    init = jax.jit(make_init(small.Net(), recipe, small.SHAPE))
    settings = small.hyperparameters(optimizer)
    given = [
        (np.int32(seed), settings | {"alpha": settings["alpha"] * factor})
        for seed, factor in ((0, 1.0), (1, 1.0), (1, 0.5))
    ]
    indices = np.stack([small.INDICES, small.INDICES[::-1], (small.INDICES + 1) % 64])
    seeds = np.stack([small.SEEDS, small.SEEDS + 1, small.SEEDS])
    together = compile_training(Devices(), step, crop_and_flip, runs=3)
    alone = compile_training(Devices(), step, crop_and_flip)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(init(*one) for one in given))
    state, losses = jax.device_get(together(stacked, small.DATA, indices, seeds))
    for place, one in enumerate(given):
        expected = jax.device_get(alone(init(*one), small.DATA, indices[place], seeds[place]))
        mine = jax.tree.map(lambda x, place=place: x[place], (state, losses))
        small.assert_agree(mine, expected, 1e-4)


def test_the_records_are_those_of_each_run_alone(digits, whole):
    for config, records in zip(RUNS, whole, strict=True):
        assert_alike(records, list(train(config, digits)), 1e-5)
    assert whole[0] != whole[2]


def test_one_that_diverges_leaves_the_others_as_they_were(digits, whole):
    wild = replace(FIRST, hyperparameters=Hyperparameters(alpha=1e30))
    with pytest.raises(Diverged) as alone:
        list(train(wild, digits))
    first, second, third = by_run(train_together([FIRST, wild, RUNS[2]], digits, [None] * 3))
    (found,) = second
    assert (found.epoch, found.step) == (alone.value.epoch, alone.value.step)
    assert [without_times(first), without_times(third)] == [without_times(whole[0]), without_times(whole[2])]


def test_one_that_diverged_asks_for_no_checkpoints(digits, tmp_path):
    """It is saved no more, so that its own would stay due after each chunk of the others' steps."""
    saved = []

    class Watched(Checkpoints):
        def due(self, epoch_ended):
            return self.folder.name == "1"

        def save(self, config, position, state):
            saved.append(self.folder.name)

    wild = replace(FIRST, hyperparameters=Hyperparameters(alpha=1e30))
    by_run(train_together([FIRST, wild, RUNS[2]], digits, [Watched(tmp_path / str(place)) for place in range(3)]))
    assert 0 < saved.count("0") == saved.count("1") < 3


def test_nothing_is_trained_when_all_have_diverged(digits):
    wild = [replace(FIRST, hyperparameters=Hyperparameters(alpha=1e30), seed=seed) for seed in range(3)]
    chunks = []
    results = by_run(train_together(wild, digits, [None] * 3, report=lambda *chunk: chunks.append(chunk)))
    assert [[type(result) for result in one] for one in results] == [[Diverged]] * 3
    assert len(chunks) < 4


@pytest.mark.parametrize("chunks", [2, 5, 6])  # of the first epoch: 4; the fifth question is asked at its end
def test_stopped_and_continued_is_the_same_to_the_bit(digits, whole, tmp_path, chunks):
    class Stop:
        left = chunks

        def __call__(self):
            self.left -= 1
            return self.left <= 0

    def checkpoints():
        return [Checkpoints(tmp_path / str(place)) for place in range(3)]

    recorded, first = ([], [], []), checkpoints()
    with pytest.raises(Interrupted):
        by_run(train_together(RUNS, digits, first, stop=Stop()), recorded)
    for one in first:
        one.close()
    for place, config in enumerate(RUNS):
        assert Checkpoints(tmp_path / str(place)).find(config) != Position()
    continued = by_run(train_together(RUNS, digits, checkpoints()))
    for before, after, expected in zip(recorded, continued, whole, strict=True):
        assert without_times(before + after) == without_times(expected)
    # And each could go on alone: its checkpoint is a run's like any other.
    alone = list(train(RUNS[1], digits, Checkpoints(tmp_path / "1")))
    assert_alike(alone, whole[1][-len(alone) :], 1e-5)
    with pytest.raises(ValueError, match="must stand at one position"):
        next(train_together(RUNS, digits, [Checkpoints(tmp_path / "0"), None, None]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "sgd", "hyperparameters": Hyperparameters(alpha=0.1)}, "optimizer adam here, sgd there"),
        ({"protocol": replace(PROTOCOLS["smoke"], epochs=5)}, "epochs 2 here, 5 there"),
        ({"precision": "bf16"}, "precision float32 here, bf16 there"),
    ],
)
def test_runs_of_several_programs_are_refused(digits, change, said):
    """The program is the first one's: the others would be trained as it, and recorded as themselves."""
    config = replace(FIRST, protocol=PROTOCOLS["smoke"])
    with pytest.raises(ConfigError, match=f"must differ in hyperparameters and seed alone, got {said}"):
        next(train_together([config, replace(config, seed=1, **change)], digits, [None, None]))


def test_several_runs_on_several_devices_are_refused(digits):
    with pytest.raises(ConfigError, match="runs trained together need one device, got 2"):
        next(train_together([FIRST, SECOND], digits, [None, None], devices=Devices(2)))


def test_each_run_has_its_own_trace(digits):
    configs = [replace(FIRST, seed=seed, trace_every=FIRST.protocol.epochs) for seed in (0, 1)]
    one, other = (records[-1] for records in by_run(train_together(configs, digits, [None, None]))[:2])
    alone = list(train(configs[1], digits))[-1]
    assert other["layer_weight_norms"] == pytest.approx(alone["layer_weight_norms"], rel=1e-4)
    assert one["weight_norm"] != pytest.approx(other["weight_norm"], rel=1e-4)
