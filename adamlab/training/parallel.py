"""The one place that knows devices: turns pure steps into compiled programs.

A program runs many steps in one call, as a scan over a chunk of batches: the host is asked for nothing in between.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path

import jax

from adamlab.training.step import Arrays, TrainState


def compile_training(train_step: Callable, augment: Callable | None = None) -> Callable:
    """The compiled `train_chunk(state, data, indices, seeds) -> (state, losses)`.

    Args:
      train_step: From a state and a batch to the next state and the loss.
      augment: From a key and a batch's images to the images to train on; None to train on them as they are.

    Returns:
      A function that takes a state, whose buffers it reuses; a data set on the device, arrays of n images; `indices`,
      int32 (steps, batch): the images of each step; and `seeds`, uint32 (steps,): of each step's augmentation. It
      returns the state after the last step and the losses, float32 (steps,).
    """

    def train_chunk(
        state: TrainState, data: Arrays, indices: jax.Array, seeds: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def step(state: TrainState, step_inputs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
            batch_indices, seed = step_inputs
            batch = {name: array[batch_indices] for name, array in data.items()}
            if augment is not None:
                batch["image"] = augment(jax.random.key(seed), batch["image"])
            return train_step(state, batch)

        return jax.lax.scan(step, state, (indices, seeds))

    return jax.jit(train_chunk, donate_argnums=0)


def compile_evaluation(eval_step: Callable) -> Callable:
    """The compiled `evaluate(state, batches) -> sums` over a set stored as arrays (batches, batch, ...)."""

    def evaluate(state: TrainState, batches: Arrays) -> Arrays:
        sums = jax.lax.map(lambda batch: eval_step(state, batch), batches)
        return {name: values.sum() for name, values in sums.items()}

    return jax.jit(evaluate)


def keep_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start need not compile.

    JAX's own setting, `JAX_COMPILATION_CACHE_DIR`, goes before ours. Programs for a CPU use the instructions of the
    machine that compiled them, so each kind of processor gets a folder of its own: a home is often shared by several.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cpuinfo = Path("/proc/cpuinfo")
    flags = [line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")] if cpuinfo.exists() else []
    processor = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags[:1]}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache / "adamlab" / "xla" / processor))


def accelerator() -> str | None:
    """The kind of the first device if it is a GPU or TPU, e.g. `NVIDIA H200`; None on a CPU."""
    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind
