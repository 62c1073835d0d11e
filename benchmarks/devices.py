"""What a training step costs on several devices, beside the cost model of docs/scaling.md.

  JAX_NUM_CPU_DEVICES=4 python -m benchmarks.devices --devices=1,2,4
  python -m benchmarks.devices --devices=1,2,4,8 --model=vgg19 --batch-size=8000          on a machine with eight GPUs

Three programs per number of devices take turns: a whole step of Adam, its update alone, which every device does, and
the average of the gradients over the devices alone. The model is

    compute / devices + update + all-reduce

with the compute of one device, a step less its update. CPU devices of one machine share its cores: there the compute
stays as it is, and the updates of all devices compete.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from adamlab import data, models
from adamlab.command import Parser
from adamlab.config import RunConfig, check_division
from adamlab.data.batches import subset
from adamlab.hyperparameters import ConfigError
from adamlab.protocol import PROTOCOLS
from adamlab.training.optimizers import Recipe, traced
from adamlab.training.parallel import AXIS, Devices, compile_training
from adamlab.training.step import Normalisation, TrainState, make_init, make_train_step
from benchmarks.step import trains_on
from benchmarks.timing import at_least, interleave, names_of, new_file, numbers_from, summary, write

# Steps in one program.
CHUNK = 5


def programs(name: str, batch_size: int, devices: Devices) -> dict[str, Callable[[], Any]]:
    """A whole step, the update alone and, on several devices, the average of the gradients alone; `CHUNK` of each."""
    recipe, axis = Recipe(), AXIS if devices.count > 1 else None
    step = make_train_step(
        models.create(name, 10, axis_name=axis), recipe, Normalisation((0.5,) * 3, (0.25,) * 3), axis
    )
    init = jax.jit(make_init(models.create(name, 10), recipe, (32, 32, 3)), out_shardings=devices.replicated)
    images = devices.replicate(subset(data.load("synthetic").train, max(batch_size, 1_000)))
    indices = np.arange(batch_size * CHUNK, dtype=np.int32).reshape(CHUNK, batch_size) % len(images["label"])
    config = RunConfig("synthetic", name, PROTOCOLS["smoke"])

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        optimizer = recipe(state.hyperparameters)
        # Else what is done with the gradients alone, the same at each step here, would be done before the loop.
        gradients, params = lax.optimization_barrier((state.batch_stats, state.params))
        updates, opt_state = optimizer.update(gradients, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        return state._replace(params=params, opt_state=opt_state), batch["label"][0]

    def average(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        return state._replace(params=lax.pmean(state.params, AXIS)), batch["label"][0]

    def repeated(train_step: Callable) -> Callable[[], Any]:
        state = init(np.int32(0), traced(config))
        if train_step is update:  # in the place of statistics, gradients
            state = state._replace(batch_stats=jax.tree.map(jnp.copy, state.params))
        inputs = images, indices, np.zeros(CHUNK, np.uint32)
        return trains_on(compile_training(devices, train_step), state, inputs)

    found = {"step": repeated(step), "update": repeated(update)}
    return found | ({"all-reduce": repeated(average)} if devices.count > 1 else {})


def predict(rows: dict[str, float], alone: dict[str, float], count: int, shared: bool) -> float:
    """Milliseconds of a step on `count` devices, from those of its parts there and of one device alone.

    >>> predict({"update": 1.0, "all-reduce": 2.0}, {"step": 9.0, "update": 1.0}, 4, shared=False)
    5.0
    """
    compute = alone["step"] - alone["update"]
    return (compute if shared else compute / count) + rows["update"] + rows.get("all-reduce", 0.0)


def main() -> None:
    """Prints, for each net and number of devices, a step's time, its parts and the model's."""
    parser = Parser("benchmarks.devices", __doc__)
    parser.add_argument(
        "--model", type=names_of(models.MODELS), default="plain20,resnet34", help="networks (default: %(default)s)"
    )
    parser.add_argument(
        "--devices", type=numbers_from(1), default="1,2,4", help="numbers of them, 1 first (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=200, help="images per step (default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=5, help="turns of each program (default: %(default)s)")
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    options = parser.parse_args()
    counts = options.devices
    if counts[0] != 1:
        parser.error(f"--devices must begin with 1, beside which others are put, got {counts[0]}")
    try:
        for count in counts:
            Devices(count)
            check_division(options.batch_size, options.batch_size, count)
    except ConfigError as error:
        parser.error(str(error))
    shared, results = jax.default_backend() == "cpu", {}
    print(f"{'':10}{'devices':>8}{'ms/step':>10}{'quartiles':>20}{'update':>9}{'all-reduce':>12}{'model':>9}{'off':>7}")
    for name in options.model:
        together = {
            (count, part): program
            for count in counts
            for part, program in programs(name, options.batch_size, Devices(count)).items()
        }
        times = interleave({f"{count} {part}": program for (count, part), program in together.items()}, options.turns)
        found = summary({key: seconds / CHUNK for key, seconds in times.items()}, f"{counts[0]} step")
        medians: dict[int, dict[str, float]] = {count: {} for count in counts}
        for count, part in together:
            medians[count][part] = found[f"{count} {part}"]["ms"]
        for count, rows in medians.items():
            model = predict(rows, medians[counts[0]], count, shared)
            spread = "{low:.1f} - {high:.1f}".format(**found[f"{count} step"])
            print(
                f"{name:10}{count:8}{rows['step']:10.1f}{spread:>20}{rows['update']:9.1f}"
                f"{rows.get('all-reduce', 0):12.1f}{model:9.1f}{model / rows['step'] - 1:+7.0%}",
                flush=True,
            )
        results[name] = found
    write(options.output, {"batch_size": options.batch_size, "devices": results})


if __name__ == "__main__":
    main()
