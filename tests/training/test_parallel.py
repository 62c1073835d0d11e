"""Several devices, and batches in pieces, give the numbers of one device and a whole batch."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from adamlab.config import RunConfig, check_division
from adamlab.hyperparameters import OPTIMIZERS, ConfigError
from adamlab.protocol import Protocol
from adamlab.training import build, feed, train
from adamlab.training.checkpoint import Checkpoints
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import AXIS, Devices, compile_training, keep_compilations
from adamlab.training.step import TrainState, make_init, make_train_step
from tests.training import small

CONFIG = RunConfig("digits", "small", Protocol("smoke", 200, test_images=70, batch_size=40, epochs=3, augment=True))


@cache
def alone(optimizer="adam", **options):
    """On one device."""
    return small.train(Devices(1), optimizer, **options)


QUICK = {("adam", 4), ("sgd_lawn", 4), ("adam_lawn", 4), ("adam_lawn", 2)}  # what devices share is the gradient


@pytest.mark.parametrize(
    ("optimizer", "count"),
    [
        pytest.param(name, count, marks=() if (name, count) in QUICK else pytest.mark.slow)
        for name in OPTIMIZERS
        for count in (2, 4)
    ],
)
def test_devices_agree_with_one_over_50_steps(optimizer, count):
    small.assert_agree(small.train(Devices(count), optimizer), alone(optimizer))


def test_a_step_exchanges_its_gradients_and_little_else():
    """Besides them the loss, and of BatchNorm the moments, their gradients and the running averages."""
    step = make_train_step(small.Net(axis_name=AXIS), Recipe(), small.NORMALISE, AXIS)
    init = make_init(small.Net(), Recipe(), small.SHAPE)
    state = jax.eval_shape(init, np.int32(0), small.hyperparameters("adam"))
    batch = {name: array[: small.BATCH] for name, array in small.DATA.items()}
    mapped = jax.shard_map(step, mesh=Devices(4).mesh, in_specs=(P(), P(AXIS)), out_specs=P(), check_vma=False)
    program = jax.jit(mapped).lower(state, batch).compile().as_text()
    reduced = re.findall(r"f32\[(.*?)\]", "".join(re.findall(r"= (.*) all-reduce\(", program)))
    exchanged = sum(prod(int(side) for side in shape.split(",") if side) for shape in reduced)
    params, stats = (sum(leaf.size for leaf in jax.tree.leaves(x)) for x in (state.params, state.batch_stats))
    assert exchanged == params + 3 * stats + 1


@pytest.mark.parametrize("optimizer", ["sgd_lawn", "adam_lawn"])
def test_shard_map_is_pmap(optimizer):
    small.assert_agree(small.train(Devices(4, "shard_map"), optimizer), small.train(Devices(4), optimizer), 1e-7)


@pytest.mark.slow
def test_eight_devices_agree_with_one_for_every_optimizer():
    code = f"""
import jax
jax.config.update("jax_num_cpu_devices", 8)
from adamlab.training.parallel import Devices
from tests.training import small
for optimizer in {list(OPTIMIZERS)}:
    expected = small.train(Devices(1), optimizer)
    for spmd in ("pmap", "shard_map"):
        small.assert_agree(small.train(Devices(8, spmd), optimizer), expected)
"""
    root = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_in_pieces_is_the_whole_batch_where_there_is_no_batch_norm(count):
    small.assert_agree(small.train(Devices(count), norm=False, pieces=4), alone(norm=False))


def test_batch_norm_sees_a_piece_whatever_the_devices():
    in_pieces = alone(pieces=4)
    small.assert_agree(small.train(Devices(2), pieces=4), in_pieces)
    small.assert_agree(small.train(Devices(4, "shard_map"), pieces=4), in_pieces)
    assert np.abs(in_pieces[1] - alone()[1]).max() > 1e-3  # four images are not sixteen


def test_batch_norm_per_device_is_that_of_pieces_of_a_devices_size():
    """Two independent ways to ghost batch normalisation, running averages included."""
    small.assert_agree(small.train(Devices(4), "sgd", norm_per_device=True), alone("sgd", pieces=4))


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (1, 2), (4, 1)])
def test_a_chunk_takes_the_states_memory_for_the_next_one(count, runs):
    """A state is in memory once, not twice."""
    devices = Devices(count)
    halve = compile_training(devices, lambda state, _: (jax.tree.map(lambda x: x / 2, state), jnp.zeros(())), runs=runs)
    axis = (runs,) if runs > 1 else ()
    before = devices.replicate(TrainState({"kernel": np.ones((*axis, 3), np.float32)}, {}, (), {}))
    indices, seeds = np.zeros((*axis, 2, 4), np.int32), np.zeros((*axis, 2), np.uint32)
    after, _ = halve(before, devices.replicate(small.DATA), indices, seeds)
    np.testing.assert_array_equal(after.params["kernel"], np.full((*axis, 3), 0.25))  # two steps
    assert before.params["kernel"].is_deleted()


@pytest.mark.parametrize(("count", "pieces"), [(1, 1), (4, 1), (2, 4)])
def test_streamed_batches_are_those_taken_from_memory(count, pieces):
    small.assert_agree(small.train(Devices(count), pieces=pieces, streamed=True), alone(pieces=pieces))


def test_a_real_net_trains_and_is_evaluated_as_on_one_device(digits):
    """One step, since rounding changes which ReLUs let through, and a set whose size four devices do not divide."""
    numbers = []
    config = replace(CONFIG, model="plain8")
    for devices in (Devices(1), Devices(4)):
        program = build.build_program(config, 10, (8, 8, 1), digits.mean, digits.std, devices)
        on_devices = feed.ArrayFeed(digits, [config], devices)
        chunk = next(on_devices.chunks(1))
        state = program.init(np.int32(0), traced(config))
        state, losses = program.train_chunk(state, chunk.data, chunk.indices[:1], chunk.seeds[:1])
        (batches,) = on_devices.evaluation()
        sums = program.evaluate(state, batches)
        numbers.append((float(losses[0]), jax.device_get(state.batch_stats), jax.device_get(sums)))
    (loss, stats, sums), (expected_loss, expected_stats, expected_sums) = numbers
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), stats, expected_stats)
    assert sums["count"] == expected_sums["count"] == 70
    assert sums["loss"] == pytest.approx(expected_sums["loss"], rel=1e-3)


def test_a_run_on_four_devices_is_resumed_to_the_same_bits_and_measured(digits, tmp_path):
    config = replace(CONFIG, trace_every=3, microbatch=20)
    numbers = ("train_loss", "test_loss", "test_accuracy", "weight_norm", "hessian_eigenvalue")

    def some(records):
        return [[record.get(name) for name in numbers] for record in records]

    whole = some(train(config, digits, devices=Devices(4)))
    first = train(config, digits, Checkpoints(tmp_path / "checkpoint", minutes=0), devices=Devices(4))
    records = [next(first) for _ in range(2)]  # the second one's checkpoint is not written
    first.close()
    resumed = train(config, digits, Checkpoints(tmp_path / "checkpoint"), devices=Devices(4))
    assert some(records[:1]) + some(resumed) == whole
    assert None not in whole[-1]


def test_a_run_may_move_to_another_number_of_devices(digits, tmp_path):
    whole = list(train(CONFIG, digits))
    first = train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint", minutes=0), devices=Devices(4))
    records = [next(first) for _ in range(2)][:1]
    first.close()
    records += train(CONFIG, digits, Checkpoints(tmp_path / "checkpoint"), devices=Devices(2))
    for record, expected in zip(records, whole, strict=True):
        for name in ("train_loss", "test_loss", "test_accuracy"):
            assert record[name] == pytest.approx(expected[name], abs=1e-5)


def test_batches_that_do_not_divide_are_refused_with_the_sizes_that_do(digits):
    with pytest.raises(ConfigError, match="batch_size must be a multiple of the 3 devices, such as 39 or 42, got 40"):
        next(train(CONFIG, digits, devices=Devices(3)))
    with pytest.raises(ConfigError, match="batch_size must be a multiple of the 8 devices, such as 8, got 4"):
        check_division(4, 4, 8)
    with pytest.raises(ConfigError, match="microbatch must divide the batch of 40, such as 10 or 20, got 15"):
        replace(CONFIG, microbatch=15)
    with pytest.raises(ConfigError, match="microbatch must divide the batch of 40, such as 40, got 50"):
        replace(CONFIG, microbatch=50)
    with pytest.raises(ConfigError, match="microbatch must be at least 1, got 0"):
        replace(CONFIG, microbatch=0)
    with pytest.raises(ConfigError, match="microbatch must be a multiple of the 4 devices, such as 8 or 20, got 10"):
        next(train(replace(CONFIG, microbatch=10), digits, devices=Devices(4)))
    with pytest.raises(ConfigError, match="norm_group must divide the 40 images seen at once, got 15"):
        replace(CONFIG, norm_group=15)
    with pytest.raises(ConfigError, match="norm_group 20 of 40 images needs 2 devices, got 4"):
        next(train(replace(CONFIG, norm_group=20), digits, devices=Devices(4)))


@pytest.mark.parametrize("count", [0, 5])
def test_devices_that_are_not_there_are_refused(count):
    with pytest.raises(ConfigError, match=rf"devices must be from 1 to 4; JAX_NUM_CPU_DEVICES .*, got {count}"):
        Devices(count)


def test_compiled_programs_are_kept_in_the_users_cache_unless_jax_was_told_where(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: kept.append(setting))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compilations()  # the suite tells it
    assert kept == []
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep_compilations()
    [(name, folder)] = kept
    assert name == "jax_compilation_cache_dir"
    assert Path(folder).parent == tmp_path / "adamlab" / "xla"


def test_a_job_of_several_processes_trains_on_all_its_devices(monkeypatch):
    """Else a process could have none of them, and wait for ever."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    Devices(4)
    with pytest.raises(ConfigError, match="devices of a job with several processes must be all 4, got 2"):
        Devices(2)
