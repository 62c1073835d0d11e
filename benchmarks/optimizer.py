"""What an optimizer's update costs: LAWN and its relatives beside optax.adam, in one interleaved run.

    python -m benchmarks.optimizer                                    # ResNet-34's 21 M parameters
    python -m benchmarks.optimizer --model=plain20 --batch-size=100   # and inside whole training steps

An update is `optimizer.update` and `optax.apply_updates`, a step what `adamlab.training` compiles; both as one of ten
in a scan which donates parameters and state, since that is how training runs them. A program of a single update also
pays for fresh memory at each call, which on a CPU takes LAWN about as long again. The optimizers take turns, so that a
machine which slows down slows them all; ratios are medians of ratios within a turn.

The floor is the time for the bytes that an update must move, at the rate of donated SGD in the same run. SGD moves 12
per float32 parameter: it reads gradient and weight and writes the weight. Adam moves 28: it reads g, m, v, w and writes
m, v, w. LAWN moves 44 where a layer does not stay in a cache: it needs <g, w> before it can begin and ||w + u||
before it can end, so it reads g and w once more at the beginning, and writes w + u, reads it and writes w at the end.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamlab import models
from adamlab.command import Parser
from adamlab.optim.adam import adam
from adamlab.optim.constraints import keep_on_sphere, project_to_tangent
from adamlab.optim.lawn import lawn
from adamlab.optim.relatives import adamp
from adamlab.optim.variants import adam_lawn, lamb_lawn, sgd_lawn
from adamlab.training.parallel import Devices, compile_training
from adamlab.training.step import Normalisation, TrainState, make_train_step
from benchmarks.step import trains_on
from benchmarks.timing import at_least, interleave, new_file, summary, write

# Updates, or steps, in one program.
CHUNK = 10
# Each with the bytes per float32 parameter that its update must at least move, where we know.
OPTIMIZERS: dict[str, tuple[optax.GradientTransformation, int | None]] = {
    "optax.adam": (optax.adam(1e-3), 28),
    "adam": (adam(1e-3), 28),
    "adam_lawn": (adam_lawn(1e-3, 3), 44),
    "adam_lawn, units": (lawn(adam(1e-3), free_steps=3, unit_axis=-1), 44),
    "in pieces": (optax.chain(project_to_tangent(), adam(1e-3), keep_on_sphere()), 44),
    "adamp": (adamp(1e-3), None),
    "optax.lamb": (optax.lamb(1e-3), None),
    "lamb_lawn": (lamb_lawn(1e-3, 3), None),
    "sgd": (optax.sgd(1e-3), 12),
    "momentum": (optax.sgd(1e-3, 0.9), 20),
    "sgd_lawn": (sgd_lawn(1e-3, 3), None),
}


def random_like(shapes: Any, seed: int) -> Any:
    leaves, structure = jax.tree.flatten(shapes)
    generator = np.random.default_rng(seed)
    arrays = [jnp.asarray(0.05 * generator.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, arrays)


def update_program(optimizer: optax.GradientTransformation, params: Any) -> Callable[[], Any]:
    """A function that does `CHUNK` updates each time it is called, on parameters of its own."""

    def chunk(carry, gradients):
        def update(carry, _):
            params, state = carry
            # Else what is done with the gradients alone, the same at each step here, would be done before the loop.
            new, params = jax.lax.optimization_barrier((gradients, params))
            updates, state = optimizer.update(new, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(update, carry, length=CHUNK)[0]

    program, gradients = jax.jit(chunk, donate_argnums=0), random_like(params, seed=1)
    carry = (params, jax.jit(optimizer.init)(params))

    def run() -> Any:
        nonlocal carry
        carry = program(carry, gradients)
        return carry

    return run


def step_program(
    optimizer: optax.GradientTransformation, model: Any, variables: Any, batch_size: int
) -> Callable[[], Any]:
    """A function that does `CHUNK` whole training steps each time it is called."""
    normalise = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    program = compile_training(Devices(), make_train_step(model, lambda _: optimizer, normalise))
    data = {"image": jnp.zeros((batch_size, 32, 32, 3), jnp.uint8), "label": jnp.zeros(batch_size, jnp.int32)}
    indices, seeds = np.tile(np.arange(batch_size, dtype=np.int32), (CHUNK, 1)), np.zeros(CHUNK, np.uint32)
    variables = jax.tree.map(jnp.copy, variables)
    opt_state = jax.jit(optimizer.init)(variables["params"])
    state = TrainState(variables["params"], variables["batch_stats"], opt_state, {})
    return trains_on(program, state, (data, indices, seeds))


def report(title: str, times: dict[str, np.ndarray], num_params: int | None = None) -> dict[str, dict[str, float]]:
    """Prints a table of chunks' seconds and returns its rows; with floors, given the parameters of an update."""
    rows = summary({name: seconds / CHUNK for name, seconds in times.items()}, "optax.adam")
    print(f"\n{title:24}{'ms':>9}{'quartiles':>20}{'ratio':>8}{'floor, ms':>11}")
    for name, row in rows.items():
        print(f"{name:24}{row['ms']:9.2f}{row['low']:10.2f} -{row['high']:8.2f}{row['ratio']:8.2f}", end="")
        if num_params and (size := OPTIMIZERS[name][1]):
            row["floor_ms"] = round(rows["sgd"]["ms"] * size / 12, 4)
            print(f"{row['floor_ms']:11.2f}", end="")
        print()
    if num_params:
        print(f"donated SGD moves {12 * num_params / rows['sgd']['ms'] / 1e6:.1f} GB/s")
    return rows


def main() -> None:
    parser = Parser("benchmarks.optimizer", __doc__)
    parser.add_argument("--model", default="resnet34", choices=models.MODELS)
    parser.add_argument("--turns", type=at_least(1), default=20, help="turns of each optimizer (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=at_least(1), help="also time whole training steps on 32x32 images, this many"
    )
    parser.add_argument("--output", type=new_file, help="also write the figures to this JSON file")
    options = parser.parse_args()

    model, image = models.create(options.model, 10), jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    print(f"{options.model}: {num_params:,} parameters; {jax.devices()[0].device_kind}, jax {jax.__version__}")

    updates = {name: update_program(make, random_like(shapes["params"], 0)) for name, (make, _) in OPTIMIZERS.items()}
    times = interleave(updates, options.turns)
    results = {"model": options.model, "num_params": num_params}
    results["update"] = report("update", times, num_params)
    if options.batch_size:
        variables = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()
        names = ("optax.adam", "adam", "adam_lawn")
        steps = {name: step_program(OPTIMIZERS[name][0], model, variables, options.batch_size) for name in names}
        results["step"] = report("training step", interleave(steps, options.turns))
    write(options.output, results)


if __name__ == "__main__":
    main()
