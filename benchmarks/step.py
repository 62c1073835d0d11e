"""What a training step costs, beside PyTorch.

  python -m benchmarks.step --peer=torch                                     plain20 and resnet34, batch 100
  python -m benchmarks.step --peer=torch --model=vgg19 --batch-size=128 --precision=bf16 --output=step.json
  python -m benchmarks.step --peer=../before --turns=20                      beside another checkout of adamlab

`adamlab` is what a study runs: a chunk of steps as one scan, data and normalisation on the device, Adam with traced
hyperparameters. PyTorch is channels-last, with torch.optim.Adam and autocast for bf16, as it is (eager) and through
torch.compile; on a GPU with the convolutions that cuDNN measures as fastest, a fused Adam, and once more with CUDA
graphs. It is no dependency: install it beside adamlab. On a GPU, both use their defaults for float32. Another
checkout's step runs in a process of its own, which waits while it is not its turn.

The limit is the time of the step's floating-point operations at the rate of large matrix products on this machine; MFU
is the share of it that a program reaches. The operations are three times those of the forward pass, less the taps of
convolutions that fall into padding, which other counts have (on 32x32 images nearly half of ResNet-34's).
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adamlab import models
from adamlab.command import Parser
from adamlab.config import RunConfig
from adamlab.protocol import Protocol
from adamlab.training.build import DTYPES
from adamlab.training.feed import MAX_CHUNK
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import Devices, compile_training
from adamlab.training.step import Normalisation, make_init, make_train_step
from benchmarks.flops import matmul_flops, step_flops
from benchmarks.timing import at_least, interleave, names_of, new_file, require_torch, summary, write

CHUNK = MAX_CHUNK  # steps per turn, as many as a study's call has: each call takes its memory anew


class Net(NamedTuple):
    """A network as the papers train it, or of another width."""

    model: str
    side: int = 32
    classes: int = 10
    options: dict[str, str] = {}  # noqa: RUF012, nobody changes it
    sizes: dict[str, tuple[int, ...]] = {}  # noqa: RUF012, the module's attributes that differ from the papers'

    def module(self, **options: Any) -> nn.Module:
        """The Flax module."""
        return models.create(self.model, self.classes, **self.options, **options).clone(**self.sizes)


NETS = {
    "plain20": Net("plain20"),
    "plain20-half": Net("plain20", sizes={"widths": (8, 16, 32)}),
    "plain20-double": Net("plain20", sizes={"widths": (32, 64, 128)}),
    "plain20-quadruple": Net("plain20", sizes={"widths": (64, 128, 256)}),
    "resnet34": Net("resnet34"),
    "resnet34-cifar": Net("resnet34", options={"stem": "cifar"}),
    "vgg19": Net("vgg19"),
    "resnet50": Net("resnet50", side=224, classes=1000),
}


def random_data(net: Net, images: int) -> dict[str, np.ndarray]:
    """Images and labels of no meaning."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, net.side, net.side, 3), dtype=np.uint8)
    return {"image": pixels, "label": generator.integers(0, net.classes, images, dtype=np.int32)}


def jax_chunk(net: Net, batch_size: int, precision: str) -> tuple[Callable, Any, tuple[Any, ...]]:
    """The compiled training of `CHUNK` steps, the state to start from, and what it takes besides the state."""
    model = net.module(dtype=DTYPES[precision])
    make_optimizer = Recipe()
    train_chunk = compile_training(
        Devices(), make_train_step(model, make_optimizer, Normalisation((0.5,) * 3, (0.25,) * 3))
    )
    arrays = traced(RunConfig("synthetic", net.model, Protocol("benchmark", CHUNK * batch_size, 1, batch_size)))
    state = jax.jit(make_init(model, make_optimizer, (net.side, net.side, 3)))(jnp.int32(0), arrays)
    data = jax.device_put(random_data(net, CHUNK * batch_size))
    seeds = np.zeros(CHUNK, np.uint32)  # of an augmentation that there is not
    indices = np.arange(CHUNK * batch_size, dtype=np.int32).reshape(CHUNK, batch_size)
    return train_chunk, state, (data, indices, seeds)


def jax_program(net: Net, batch_size: int, precision: str) -> Callable[[], Any]:
    """A function that trains `CHUNK` steps in one call of the compiled program."""
    return trains_on(*jax_chunk(net, batch_size, precision))


def trains_on(train_chunk: Callable, state: Any, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """A function that trains a chunk from where its last call ended, and returns the losses."""

    def run() -> Any:
        nonlocal state
        state, losses = train_chunk(state, *inputs)
        return losses

    return run


def torch_programs(net: Net, batch_size: int, precision: str) -> dict[str, Callable[[], Any]]:
    """Functions that train `CHUNK` steps in PyTorch each, on a GPU if there is one, where there is one more way."""
    import torch

    ways: dict[str, Callable[[Any], Any]] = {"torch eager": lambda module: module, "torch.compile": torch.compile}
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        ways["CUDA graphs"] = partial(torch.compile, mode="reduce-overhead")
    return {label: torch_program(net, batch_size, precision, way) for label, way in ways.items()}


def torch_program(net: Net, batch_size: int, precision: str, way: Callable[[Any], Any]) -> Callable[[], Any]:
    """A function that trains `CHUNK` steps of what `way` makes of the net."""
    import torch

    from benchmarks import torch_nets

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = torch_nets.create(net.model, net.classes, **net.options, **net.sizes)
    module = module.to(device, memory_format=torch.channels_last)
    forward = way(module)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3, fused=device == "cuda" or None)
    data = random_data(net, CHUNK * batch_size)
    images = torch.tensor(data["image"], device=device).permute(0, 3, 1, 2)
    labels = torch.tensor(data["label"], device=device).long()

    def run() -> None:
        for batch in torch.arange(CHUNK * batch_size, device=device).split(batch_size):
            x = (images[batch].to(memory_format=torch.channels_last).float() / 255 - 0.5) / 0.25
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = torch.nn.functional.cross_entropy(forward(x), labels[batch])
            loss.backward()
            optimizer.step()
        loss.item()

    return run


CHECKOUT = """
import sys, jax
from benchmarks import step
step.CHUNK = int(sys.argv[4])
run = step.jax_program(step.NETS[sys.argv[1]], int(sys.argv[2]), sys.argv[3])
for _ in sys.stdin:
    jax.block_until_ready(run())
    print(flush=True)
"""


@contextmanager
def checkout_program(folder: str, name: str, batch_size: int, precision: str) -> Iterator[Callable[[], Any]]:
    """A function that trains `CHUNK` steps as the checkout in a folder does, in a process of its own."""
    command = [sys.executable, "-c", CHECKOUT, name, str(batch_size), precision, str(CHUNK)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True) as process:
        turns, done = process.stdin, process.stdout

        def run() -> None:
            if process.poll() is None:  # else there is nobody to write to
                print(file=turns, flush=True)
            if not done.readline():  # pyright: ignore[reportOptionalMemberAccess]
                process.wait()
                raise SystemExit(f"error: the checkout in {folder} could not train {name}; its own message is above")

        yield run


def compare(name: str, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    """Prints a row per program, and returns them: milliseconds per step, ratio of ours to it, share of the peak."""
    net, batch_size, precision = NETS[name], options.batch_size, options.precision
    programs = {"adamlab": jax_program(net, batch_size, precision)}
    if options.peer == "torch":
        programs |= torch_programs(net, batch_size, precision)
    with ExitStack() as peers:
        if options.peer not in (None, "torch"):
            programs[options.peer] = peers.enter_context(checkout_program(options.peer, name, batch_size, precision))
        times = {label: seconds / CHUNK for label, seconds in interleave(programs, options.turns).items()}
    limit = step_flops(net.module(), (batch_size, net.side, net.side, 3)) / peak
    rows = summary(times, "adamlab")
    for label, row in rows.items():
        row["ratio"] = round(float(np.median(times["adamlab"] / times[label])), 4)
        row["images_per_second"], row["mfu"] = round(1e3 * batch_size / row["ms"], 1), round(1e3 * limit / row["ms"], 4)
        print(
            f"{name:16}{label:15}{row['ms']:10.1f}{row['low']:10.1f} -{row['high']:8.1f}{row['ratio']:11.2f}"
            f"{row['images_per_second']:11.0f}{row['mfu']:8.1%}",
            flush=True,
        )
    return {"limit_ms": round(1e3 * limit, 4), "programs": rows}


def step_parser(module: str, docstring: str | None) -> Parser:
    """The command line of a module, with the options that say which steps it is about."""
    parser = Parser(module, docstring)
    nets = f"of {','.join(NETS)} (default: %(default)s)"
    parser.add_argument("--model", type=names_of(NETS), default="plain20,resnet34", help=nets)
    parser.add_argument("--batch-size", type=at_least(1), default=100, help="images per step (default: %(default)s)")
    parser.add_argument("--precision", choices=tuple(DTYPES), default="float32", help="(default: %(default)s)")
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    return parser


def main() -> None:
    """Compares every network that was asked for."""
    parser = step_parser("benchmarks.step", __doc__)
    parser.add_argument("--peer", help="also time this one: torch, or another checkout's folder")
    parser.add_argument("--turns", type=at_least(1), default=5, help="turns of each program (default: %(default)s)")
    options = parser.parse_args()
    if options.peer == "torch":
        require_torch(parser)
    elif options.peer is not None and not (Path(options.peer) / "benchmarks" / "step.py").exists():
        parser.error(f"--peer must be torch or a checkout with a benchmarks/step.py, got {options.peer}")
    peak = matmul_flops(DTYPES[options.precision])
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}; batch {options.batch_size}, {options.precision}; ",
        end="",
    )
    print(f"matrix products at {peak / 1e9:.0f} GFLOP/s")
    print(f"{'':16}{'':15}{'ms/step':>10}{'quartiles':>20}{'ours/this':>11}{'images/s':>11}{'MFU':>8}")
    results = {name: compare(name, options, peak) for name in options.model}
    write(options.output, {"batch_size": options.batch_size, "precision": options.precision, "nets": results})


if __name__ == "__main__":
    main()
