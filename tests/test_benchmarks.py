"""The benchmarks run on the library as it is; how fast is for a quiet machine to say."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamlab import models
from adamlab.models.plain import Plain
from adamlab.training.parallel import Devices
from benchmarks import data as data_benchmark
from benchmarks import devices, flops, memory, optimizer, profile, startup, step, sweep, timing
from benchmarks.timing import interleave, summary
from tests.training import small


def test_a_step_trains(monkeypatch):
    monkeypatch.setitem(models.MODELS, "plain20", small.Net)
    run = step.jax_program(step.NETS["plain20"], batch_size=2, precision="float32")
    first, second = np.asarray(run()), np.asarray(run())
    assert first.shape == (step.CHUNK,)
    assert np.isfinite([first, second]).all()
    assert (first != second).all()  # of the same images, and a net that has moved


def weights(name):
    """Numbers of weights, layer by layer, in the order of their sizes."""
    net = step.NETS[name]
    shapes = jax.eval_shape(net.module().init, jax.random.key(0), jnp.zeros((1, net.side, net.side, 3)))["params"]
    return sorted(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(("name", "times"), [("plain20-half", 0.5), ("plain20-double", 2), ("plain20-quadruple", 4)])
def test_a_plain_net_of_another_width_differs_in_width_alone(name, times):
    assert len(weights(name)) == len(weights("plain20"))
    assert weights(name)[-1] == times**2 * weights("plain20")[-1] == (64 * times) ** 2 * 9


@pytest.mark.bench
def test_peers_have_the_weights_of_our_nets():
    pytest.importorskip("torch")
    from benchmarks import torch_nets

    for name, net in step.NETS.items():
        peer = torch_nets.create(net.model, net.classes, **net.options, **net.sizes)
        assert sorted(parameter.numel() for parameter in peer.parameters()) == weights(name), name


def test_another_checkout_trains_when_it_is_its_turn(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "step.py").write_text(
        "NETS = {'plain20': 'its own'}\n"
        "def jax_program(*arguments):\n"
        "    return lambda: print(*arguments, CHUNK, file=open('turns', 'a'))\n"
    )
    with step.checkout_program(str(tmp_path), "plain20", 2, "bf16") as run:
        for turns in (1, 2):
            run()
            assert (tmp_path / "turns").read_text() == f"its own 2 bf16 {step.CHUNK}\n" * turns
    with step.checkout_program(str(tmp_path), "vgg19", 2, "bf16") as run:
        for _ in range(2):  # whose process is about to end, and has ended
            with pytest.raises(SystemExit, match=f"the checkout in {tmp_path} could not train vgg19"):
                run()


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("--peer=tests", "--peer must be torch or a checkout with a benchmarks/step.py, got tests"),
        ("--peer=torch", "--peer=torch needs PyTorch, which is not installed here"),
        ("--model=plain20,vgg", f"--model: unknown 'vgg'; there is {', '.join(step.NETS)}"),
    ],
)
def test_bad_input_is_refused(argument, answer, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.timing.find_spec", lambda name: None)  # as where PyTorch is not
    monkeypatch.setattr("sys.argv", ["step", argument])
    with pytest.raises(SystemExit) as stop:
        step.main()
    assert stop.value.code == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "arguments", "answer"),
    [
        (step, ["--turns=0"], "--turns: must be at least 1, got 0"),
        (data_benchmark, ["--images=10"], "--images: must be at least 32, got 10"),
        (data_benchmark, ["--peer=torch"], "--peer=torch needs PyTorch, which is not installed here"),
        (devices, ["--devices=2,4"], "--devices must begin with 1, beside which others are put, got 2"),
        (devices, ["--devices=1,99"], "devices must be from 1 to 4"),
        (devices, ["--devices=1,3"], "batch_size must be a multiple of the 3 devices"),
        (memory, ["--model=foo"], "--model: unknown 'foo'; there is plain20, resnet34"),
        (memory, ["--microbatch=7"], "microbatch must divide the batch of 10000, such as 5 or 8, got 7"),
        (sweep, ["--study", "--model=vgg19"], "--study is of plain20 and resnet34, got vgg19"),
        (sweep, ["--study", "--protocol=long"], "invalid choice: 'long'"),
        (sweep, ["--study", "--dataset=nosuch"], "nosuch is not prepared in"),
        (optimizer, ["--output=/"], "--output: must be a file, got /, which is a folder"),
        (optimizer, ["--output=/dev/null/figures.json"], "--output: cannot write results to /dev/null"),
    ],
)
def test_what_cannot_be_measured_is_refused(command, arguments, answer, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.timing.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert answer in capsys.readouterr().err


def test_one_by_one_and_vmapped_take_the_same_steps(monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 2)
    monkeypatch.setattr(sweep, "CHUNK", 1)
    monkeypatch.setitem(models.MODELS, "plain20", small.Net)
    programs = sweep.programs("plain20", 2)
    one_by_one, together = (programs[name]() for name in ("one by one", "vmap"))
    # Adam's first step is alpha long, and the two alphas differ by 1e-4.
    for place, state in enumerate(one_by_one):
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, mine.params)


def test_a_step_on_two_devices_and_its_parts_run(monkeypatch):
    monkeypatch.setitem(models.MODELS, "plain20", small.Net)
    parts = devices.programs("plain20", 4, Devices(2))
    assert list(parts) == ["step", "update", "all-reduce"]
    assert all(np.isfinite(part()).all() for part in parts.values())
    # Compute 8, halved on two devices of their own and the same on two that share their cores.
    alone, here = {"step": 10.0, "update": 2.0}, {"update": 2.5, "all-reduce": 1.0}
    assert [devices.predict(here, alone, 2, shared) for shared in (False, True)] == [7.5, 11.5]


def test_a_chunk_of_updates_is_so_many_updates():
    # SGD at rate 1 on one gradient g: w - 10 g after a chunk of ten.
    params = {"w": np.ones(3, np.float32)}
    gradients = optimizer.random_like(params, seed=1)
    (moved, _) = optimizer.update_program(optax.sgd(1.0), jax.tree.map(jnp.asarray, params))()
    np.testing.assert_allclose(moved["w"], 1 - optimizer.CHUNK * gradients["w"], rtol=1e-5)


def test_ratios_are_medians_within_a_turn():
    # Of the turns' ratios, 1/4, 2 and 3, the median is 2; the ratio of the medians would be 1.
    rows = summary({"a": np.array([1.0, 2.0, 6.0]), "b": np.array([4.0, 1.0, 2.0])}, "b")
    assert (rows["a"]["ratio"], rows["a"]["ms"]) == (2.0, 2000.0)
    assert [len(values) for values in interleave({"a": lambda: 0, "b": lambda: 1}, turns=3).values()] == [3, 3]


def test_a_profile_sees_every_run_of_an_operation():
    def program(x):
        first = jnp.dot(x, x)
        return jax.lax.scan(lambda y, _: (jnp.dot(y, x), None), first, length=7)[0]

    x = jnp.eye(300)
    compiled = jax.jit(program).lower(x).compile()
    _, ran = profile.trace(lambda: compiled(x), compiled.as_text())
    assert set(Counter(interval.operation for interval in ran).values()) == {1, 7}
    assert all(interval.end > interval.start for interval in ran)


def test_a_profile_of_a_step_has_the_parts_that_the_net_has(monkeypatch):
    monkeypatch.setitem(models.MODELS, "plain20", partial(Plain, set_size=1, widths=(4, 4, 4)))
    found = profile.profile("plain20", 2, "float32")["parts"]
    none = {part for part, milliseconds in found.items() if milliseconds == 0}
    assert none <= {"both, by products for each pixel", "idle"}  # no map is small enough


class Linear(nn.Module):
    """One matrix product."""

    num_classes: int
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


def test_a_step_has_three_products_for_each_of_the_forward_pass_and_the_peak_is_all_of_mfu(monkeypatch, capsys):
    monkeypatch.setitem(models.MODELS, "plain20", Linear)
    # Of 8 images, 32 x 32 x 3 numbers each, ten sums of products: a multiplication and an addition per number.
    asked = flops.step_flops(models.create("plain20", 10), (8, 32, 32, 3))
    assert asked == pytest.approx(3 * 2 * 8 * 3072 * 10, rel=1e-3)  # but for the biases
    # A chunk in 0.5 s is a step in 20 ms; at a peak that would take 10 ms, that is half of it.
    monkeypatch.setattr(step, "jax_program", lambda *arguments: None)
    monkeypatch.setattr(step, "interleave", lambda programs, turns: dict.fromkeys(programs, np.full(turns, 0.5)))
    monkeypatch.setattr(step, "CHUNK", 25)
    options = Namespace(batch_size=8, precision="float32", peer=None, turns=3)
    found = step.compare("plain20", options, peak=asked / 0.01)
    row = found["programs"]["adamlab"]
    assert (found["limit_ms"], row["ms"], row["mfu"], row["images_per_second"]) == (10.0, 20.0, 0.5, 400.0)
    assert capsys.readouterr().out.endswith("50.0%\n")


def test_operations_are_those_that_xla_counts():
    """Which has those between the products, too; but not on a GPU, where JAX cannot ask it."""
    model, images = models.create("resnet34", 10), jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    forward = jax.jit(partial(model.apply, train=False)).trace(variables, images)
    counted = forward.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"]
    assert flops.step_flops(models.create("resnet34", 10), (4, 32, 32, 3)) == pytest.approx(3 * counted, rel=0.01)


def test_pytorch_on_another_device_is_no_peer(monkeypatch, capsys):
    monkeypatch.setattr(timing, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True)))
    with pytest.raises(SystemExit):
        timing.require_torch(ArgumentParser())
    assert "--peer=torch must be on JAX's device, cpu, got gpu" in capsys.readouterr().err


def test_the_peak_counts_multiplications_and_additions(monkeypatch):
    """By a clock that goes on by half a second whenever it is read."""
    monkeypatch.setattr(flops, "time", SimpleNamespace(perf_counter=count(0, 0.5).__next__))
    assert flops.matmul_flops(np.float32) == 2 * 1024**3 / 0.5


def test_a_start_waits_for_all_but_the_execution_of_two_chunks(monkeypatch, capsys):
    """By clocks of which one tells the phases, 1 to 5 s long, the other 20 s from the start of the process."""
    monkeypatch.setitem(models.MODELS, "plain20", Linear)
    monkeypatch.setattr("adamlab.training.parallel.keep_compilations", lambda: None)
    clock = SimpleNamespace(perf_counter=iter((0, 1, 3, 6, 10, 15)).__next__, time=lambda: 120.0)
    monkeypatch.setattr(startup, "time", clock)
    startup.child("synthetic", "plain20", 100.0)
    phases = {"imports": 1, "data": 2, "init": 3, "first chunk": 4, "second chunk": 5, "before execution": 10}
    assert json.loads(capsys.readouterr().out) == phases
