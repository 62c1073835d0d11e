"""How much memory a training step of a large batch takes, whole and in microbatches: what XLA's compiler plans.

  python -m benchmarks.memory                                      batch 10,000 of 32x32 images
  python -m benchmarks.memory --model=resnet50 --side=224 --batch-size=16000 --microbatch=0,250

Nothing is trained and no batch is made: each program is compiled and asked for the size of its temporary buffers, which
hold activations and gradients, and of its arguments, the state and the batch itself. Compiling takes as long as a first
start; a net on a CPU takes other formulations of its convolutions than on a GPU, and so other buffers.
"""

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from adamlab import models
from adamlab.command import Parser
from adamlab.config import RunConfig, check_division
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import PROTOCOLS
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.step import Normalisation, make_init, make_train_step
from benchmarks.timing import at_least, names_of, numbers_from

GIB = 2**30


def measure(net: str, side: int, batch: int, microbatch: int) -> tuple[float, float]:
    """GiB of temporary buffers and of arguments of one compiled step of Adam-LAWN; microbatch 0 is the whole batch."""
    model = models.create(net, 1000 if side >= 128 else 10)
    recipe, shape = Recipe("adam_lawn", "phases"), (side, side, 3)
    config = RunConfig("none", net, PROTOCOLS["lawn-smoke"], optimizer="adam_lawn")
    step = make_train_step(model, recipe, Normalisation((0.5,) * 3, (0.25,) * 3), pieces=batch // (microbatch or batch))
    state = jax.eval_shape(make_init(model, recipe, shape), jnp.int32(0), traced(config))
    images = {
        "image": jax.ShapeDtypeStruct((batch, *shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    planned = jax.jit(step, donate_argnums=0).lower(state, images).compile().memory_analysis()
    return planned.temp_size_in_bytes / GIB, planned.argument_size_in_bytes / GIB


def main() -> None:
    """Prints one row per net and microbatch."""
    parser = Parser("benchmarks.memory", __doc__)
    parser.add_argument("--model", type=names_of(models.MODELS), default="plain20,resnet34", metavar="NET,...")
    parser.add_argument("--side", type=at_least(1), default=32, help="of the images, in pixels (default: 32)")
    parser.add_argument("--batch-size", type=at_least(1), default=10_000, help="images per step (default: 10000)")
    parser.add_argument("--microbatch", type=numbers_from(0), default="0,1000,250", metavar="M,...", help="0 is none")
    arguments = parser.parse_args()
    try:
        for microbatch in arguments.microbatch:
            check_division(arguments.batch_size, microbatch or arguments.batch_size)
    except ConfigError as error:
        parser.error(str(error))
    device = jax.devices()[0].device_kind
    title = f"batch {arguments.batch_size:,} of {arguments.side}x{arguments.side}, compiled for {device}"
    table = Table("net", "microbatch", "temporary, GiB", "state and batch, GiB", title=title)
    for net in arguments.model:
        for microbatch in arguments.microbatch:
            temporary, held = measure(net, arguments.side, arguments.batch_size, microbatch)
            table.add_row(net, f"{microbatch or 'whole'}", f"{temporary:.2f}", f"{held:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
