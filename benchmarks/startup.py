"""How long a study waits for its first step, with an empty and with a filled cache of programs and decoded images.

  python -m benchmarks.startup                       plain20 and resnet34
  python -m benchmarks.startup --model=vgg19 --turns=5
  python -m benchmarks.startup --dataset=cifar10     with the real images

Each start is a process of its own, up to the loss of its first chunk of steps (batch 100, 25 steps or fewer). The
phases are seconds: `imports`; `data`; `init`, until the first weights are being computed; `first chunk`, compiled or
fetched from the cache, then executed; `second chunk`, which is execution alone; `before execution`, from the start of
the process to the end of the first chunk, less the second's seconds: what a start waits for its first step.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from statistics import median

from adamlab.command import Parser


def child(dataset_name: str, name: str, started: float) -> None:
    """One start of a process that began at the time `started`: prints its phases as JSON."""
    marks = [time.perf_counter()]
    import jax
    import jax.numpy as jnp

    from adamlab import data
    from adamlab.config import RunConfig
    from adamlab.protocol import Protocol
    from adamlab.training.build import build_program
    from adamlab.training.feed import ArrayFeed
    from adamlab.training.optimizers import traced
    from adamlab.training.parallel import Devices, keep_compilations

    marks.append(time.perf_counter())
    dataset = data.load(dataset_name)
    config = RunConfig(dataset_name, name, Protocol("benchmark", 1_000, 500, batch_size=100, epochs=1))
    feed = ArrayFeed(dataset, [config], Devices())
    marks.append(time.perf_counter())
    keep_compilations()
    program = build_program(config, dataset.num_classes, dataset.train["image"].shape[1:], dataset.mean, dataset.std)
    state = program.init(jnp.int32(0), traced(config))  # as in training: computed while the step is traced
    marks.append(time.perf_counter())
    chunk = next(feed.chunks(1))
    for _ in range(2):
        state, losses = program.train_chunk(state, *chunk)
        jax.block_until_ready(losses)
        marks.append(time.perf_counter())
    waited = time.time() - started
    names = ("imports", "data", "init", "first chunk", "second chunk")
    phases = dict(zip(names, (b - a for a, b in pairwise(marks)), strict=True))
    phases["before execution"] = waited - 2 * phases["second chunk"]
    print(json.dumps(phases))


def start(dataset_name: str, name: str, cache: str) -> dict[str, float]:
    """The phases of one start in a process of its own."""
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "benchmarks.startup", "--child", dataset_name, name, repr(time.time())]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Starts every network that was asked for with an empty cache, then with what that start left in it."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4], float(sys.argv[4]))
        return

    from adamlab import data, models  # here: a start must import JAX by itself
    from benchmarks.timing import at_least, names_of, new_file, write

    parser = Parser("benchmarks.startup", __doc__)
    parser.add_argument(
        "--model", type=names_of(models.MODELS), default="plain20,resnet34", help="networks (default: %(default)s)"
    )
    parser.add_argument("--dataset", choices=("synthetic", "cifar10"), default="synthetic", help="(default: synthetic)")
    parser.add_argument(
        "--turns", type=at_least(1), default=3, help="starts of each kind; medians (default: %(default)s)"
    )
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    options = parser.parse_args()
    try:
        data.load(options.dataset)
    except data.DataError as error:
        parser.error(str(error))
    results = {}
    for name in options.model:
        found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
        for _ in range(options.turns):
            with tempfile.TemporaryDirectory() as cache:
                found["cold"].append(start(options.dataset, name, cache))
                found["warm"].append(start(options.dataset, name, cache))
        for kind, starts in found.items():
            row = {phase: round(median(start[phase] for start in starts), 3) for phase in starts[0]}
            print(f"{name:12}{kind:6}" + "".join(f"{phase} {seconds:.2f} s   " for phase, seconds in row.items()))
            results[f"{name} {kind}"] = row
    write(options.output, {"starts": results})


if __name__ == "__main__":
    main()
