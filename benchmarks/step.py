"""What a training step costs, beside PyTorch where it is installed.

  python -m benchmarks.step                                    plain20 and resnet34, batch 100
  python -m benchmarks.step --model=vgg19 --batch-size=128

The programs take turns, so that a machine which slows down slows them all; ratios are medians of ratios within a turn.
`adamlab` is what a study runs: a chunk of steps as one scan, data and normalisation on the device, Adam with traced
hyperparameters. `torch` is eager, channels-last, with torch.optim.Adam; it is no dependency: install it beside adamlab
(`uv sync --extra bench`). On a GPU, both use their defaults for float32.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab import models
from adamlab.config import Protocol, RunConfig
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import compile_training
from adamlab.training.step import Normalisation, make_init, make_train_step

CHUNK = 5  # steps per turn
SHAPE = (32, 32, 3)


def random_data(images: int) -> dict[str, np.ndarray]:
    """Images and labels of no meaning."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, *SHAPE)).astype(np.uint8)
    return {"image": pixels, "label": generator.integers(0, 10, images).astype(np.int32)}


def jax_program(name: str, batch_size: int) -> Callable[[], None]:
    """A function that trains `CHUNK` steps in one call of the compiled program."""
    model = models.create(name, 10)
    make_optimizer = Recipe()
    train_chunk = compile_training(make_train_step(model, make_optimizer, Normalisation((0.5,) * 3, (0.25,) * 3)))
    arrays = traced(RunConfig("synthetic", name, Protocol("benchmark", CHUNK * batch_size, 1, batch_size)))
    state = jax.jit(make_init(model, make_optimizer, SHAPE))(jnp.int32(0), arrays)
    data = jax.device_put(random_data(CHUNK * batch_size))
    seeds = np.zeros(CHUNK, np.uint32)  # of an augmentation that there is not
    indices = np.arange(CHUNK * batch_size, dtype=np.int32).reshape(CHUNK, batch_size)

    def run() -> None:
        nonlocal state
        state, losses = train_chunk(state, data, indices, seeds)
        jax.block_until_ready(losses)

    return run


def torch_program(name: str, batch_size: int) -> Callable[[], None] | None:
    """A function that trains `CHUNK` steps in PyTorch, on a GPU if there is one; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    from benchmarks import torch_nets

    constructors: dict[str, Callable[[], Any]] = {
        "plain20": lambda: torch_nets.plain20(10, "last"),
        "resnet34": lambda: torch_nets.resnet(10, bottleneck=False, stem="imagenet"),
        "resnet50": lambda: torch_nets.resnet(10, bottleneck=True, stem="imagenet"),
        "vgg19": lambda: torch_nets.vgg19(10),
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = constructors[name]().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    data = random_data(CHUNK * batch_size)
    images = torch.tensor(data["image"], device=device).permute(0, 3, 1, 2)
    labels = torch.tensor(data["label"], device=device).long()

    def run() -> None:
        for batch in torch.arange(CHUNK * batch_size, device=device).split(batch_size):
            x = (images[batch].to(memory_format=torch.channels_last).float() / 255 - 0.5) / 0.25
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), labels[batch])
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def compare(name: str, batch_size: int, turns: int) -> None:
    """Prints a row per program: milliseconds per step and the ratio to ours."""
    programs = {
        "adamlab": jax_program(name, batch_size),
        "torch": torch_program(name, batch_size),
    }
    present = {label: program for label, program in programs.items() if program}
    times: dict[str, list[float]] = {label: [] for label in present}
    for turn in range(turns + 1):
        for label, program in present.items():
            start = time.perf_counter()
            program()
            if turn:  # the first one compiles and warms up
                times[label].append(1e3 * (time.perf_counter() - start) / CHUNK)
    for label, values in times.items():
        ratio = np.median(np.divide(times["adamlab"], values))
        low, median, high = np.percentile(values, [0, 50, 100])
        print(f"{name:10}{label:10}{median:10.1f}{low:10.1f} -{high:8.1f}{ratio:12.2f}", flush=True)


def main() -> None:
    """Compares every network that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="plain20,resnet34", help="networks (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=100, help="images per step (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each program (default: %(default)s)")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {platform.machine()}, jax {jax.__version__}; batch {options.batch_size}")
    print(f"{'':10}{'':10}{'ms/step':>10}{'spread':>20}{'ours/this':>12}")
    for name in options.model.split(","):
        compare(name, options.batch_size, options.turns)


if __name__ == "__main__":
    main()
