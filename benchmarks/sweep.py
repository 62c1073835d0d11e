"""What a sweep costs: the same small training, over and over.

  python -m benchmarks.sweep                               K settings: one by one, and vmapped
  python -m benchmarks.sweep --study --peer=torch          the whole alpha study, beside the same study in PyTorch

One by one is what a study does: one program, hyperparameters as arrays, a run after the other. `vmap` trains all in
one program, as `--vmap=K` does. The whole study is timed from the command line to its figures, with an empty
compilation cache (cold), with the one that it left behind (warm), and with that in two processes on one folder, which
share the cores; PyTorch's is a plain script: eager, channels-last, data in memory, the same networks, settings, images
and evaluations.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamlab import data, models
from adamlab.command import Parser
from adamlab.config import RunConfig
from adamlab.data.batches import evaluation_images, subset
from adamlab.data.order import epoch_order
from adamlab.hyperparameters import MAGNITUDE, varied
from adamlab.protocol import PROTOCOLS
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import Devices, compile_training
from adamlab.training.step import Normalisation, make_init, make_train_step
from benchmarks.step import CHUNK
from benchmarks.timing import at_least, interleave, names_of, new_file, require_torch, summary, write
from experiments.sensitivity import MODELS as STUDIED

BATCH = 100


def settings(name: str, count: int) -> list[RunConfig]:
    """Runs that differ in alpha alone."""
    protocol = PROTOCOLS["laptop"]
    return [RunConfig("synthetic", name, protocol, varied("adam", "alpha", 1e-3 * 1.1**i)) for i in range(count)]


def programs(name: str, count: int) -> dict[str, Callable[[], Any]]:
    """Each trains `count` settings for `CHUNK` steps of batch `BATCH` when it is called."""
    model, recipe = models.create(name, 10), Recipe()
    step = make_train_step(model, recipe, Normalisation((0.5,) * 3, (0.25,) * 3))
    init, train_chunk = jax.jit(make_init(model, recipe, (32, 32, 3))), compile_training(Devices(), step)
    images = jax.device_put(subset(data.load("synthetic").train, BATCH * CHUNK))
    indices = np.arange(BATCH * CHUNK, dtype=np.int32).reshape(CHUNK, BATCH)
    seeds = np.zeros(CHUNK, np.uint32)
    states = [init(jnp.int32(0), traced(config)) for config in settings(name, count)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = compile_training(Devices(), step, runs=count)  # as `--vmap=K` has it: each run with its own images

    def one_by_one() -> Any:
        for place, state in enumerate(states):
            states[place], _ = train_chunk(state, images, indices, seeds)
        return states

    def vmapped() -> Any:
        nonlocal stacked
        stacked, _ = together(stacked, images, np.stack([indices] * count), np.stack([seeds] * count))
        return stacked

    return {"one by one": one_by_one, "vmap": vmapped}


def study(name: str, processes: int, cache: str, arguments: list[str]) -> float:
    """Seconds of the alpha study on one network as a person starts it, in so many processes on one results folder."""
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor() as pool:
        command = [sys.executable, "-m", "experiments.sensitivity", "--param=alpha", f"--model={name}", f"--out={out}"]
        run = lambda _: subprocess.run([*command, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
        start = time.perf_counter()
        list(pool.map(run, range(processes)))
        return time.perf_counter() - start


def torch_study(name: str, dataset: data.Dataset, protocol: Any) -> float:
    """Seconds of the same study in PyTorch, from the first import on: each network's, as if it were the first."""
    import torch

    from benchmarks import torch_nets

    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mean, std = (torch.tensor(moments, device=device).reshape(1, 3, 1, 1) for moments in (dataset.mean, dataset.std))
    train, test = subset(dataset.train, protocol.train_images), evaluation_images(dataset, protocol)

    def tensors(split: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.tensor(split["image"], device=device).permute(0, 3, 1, 2)
        return images, torch.tensor(split["label"], device=device).long()

    (images, labels), (test_images, test_labels) = tensors(train), tensors(test)
    normalise = lambda x: ((x.float() / 255 - mean) / std).to(memory_format=torch.channels_last)  # noqa: E731
    for alpha in MAGNITUDE["alpha"]:
        torch.manual_seed(0)
        net = torch_nets.create(name, 10).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), alpha)
        for epoch in range(1, protocol.epochs + 1):
            net.train()
            order = epoch_order(0, epoch, len(labels), protocol.steps_per_epoch, protocol.batch_size)
            for batch in torch.tensor(order, device=device).long():
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(normalise(images[batch])), labels[batch]).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                for rows in torch.arange(len(test_labels), device=device).split(500):
                    logits = net(normalise(test_images[rows]))
                    torch.nn.functional.cross_entropy(logits, test_labels[rows], reduction="sum").item()
    return time.perf_counter() - start


def compare_studies(
    names: list[str], dataset: data.Dataset, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Prints and returns seconds: cold, warm, in two processes, and PyTorch's; a turn each after the other."""
    arguments = [f"--dataset={options.dataset}", f"--protocol={options.protocol}"]
    results = {}
    for name in names:
        with tempfile.TemporaryDirectory() as cache:
            row = {"cold": study(name, 1, cache, arguments), "warm": study(name, 1, cache, arguments)}
            row["warm, two processes"] = study(name, 2, cache, arguments)
        if options.peer == "torch":
            protocol = PROTOCOLS[options.protocol]
            # Cut to the data set, as the study is.
            train_images = min(protocol.train_images, dataset.train_size)
            test_images = min(protocol.test_images, dataset.test_size)
            cut = replace(protocol, train_images=train_images, test_images=test_images)
            row["torch"] = torch_study(name, dataset, cut)
        results[name] = {label: round(seconds, 1) for label, seconds in row.items()}
        print(f"{name:12}" + "   ".join(f"{label} {seconds:.1f} s" for label, seconds in row.items()), flush=True)
    return results


def main() -> None:
    """Compares ways to train several settings, or whole studies."""
    parser = Parser("benchmarks.sweep", __doc__)
    parser.add_argument(
        "--model", type=names_of(models.MODELS), default="plain20,resnet34", help="networks (default: %(default)s)"
    )
    parser.add_argument("--settings", type=at_least(1), default=4, metavar="K", help="(default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=5, help="turns of each way (default: %(default)s)")
    parser.add_argument("--study", action="store_true", help="time the whole alpha study instead")
    parser.add_argument("--dataset", default="cifar10", help="of the study (default: %(default)s)")
    parser.add_argument(
        "--protocol", choices=("paper", "laptop", "smoke"), default="laptop", help="of the study (default: %(default)s)"
    )
    parser.add_argument("--peer", choices=("torch",), help="also time the same study in this one")
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    options = parser.parse_args()
    names = options.model
    if options.peer:
        require_torch(parser)
        if not options.study:
            parser.error(f"--peer={options.peer} is for --study")
        if options.dataset != "cifar10":  # the peer has three channels and ten classes
            parser.error(f"--peer={options.peer} is for --dataset=cifar10, got {options.dataset}")
    if options.study:
        if other := sorted(set(names) - set(STUDIED)):
            parser.error(f"--study is of {' and '.join(STUDIED)}, got {', '.join(other)}")
        try:
            dataset = data.load(options.dataset)
        except data.DataError as error:
            parser.error(str(error))
        write(options.output, {"study_seconds": compare_studies(names, dataset, options)})
        return
    results = {}
    for name in names:
        results[name] = summary(interleave(programs(name, options.settings), options.turns), "one by one")
        for label, row in results[name].items():
            rate = 1e3 * options.settings * BATCH * CHUNK / row["ms"]
            print(
                f"{name:12}{label:14}{rate:8.0f} images/s, {row['ratio']:.2f} times as long as one by one", flush=True
            )
    write(options.output, {"settings": options.settings, "ways": results})


if __name__ == "__main__":
    main()
