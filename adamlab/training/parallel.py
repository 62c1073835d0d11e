"""The one place that knows devices: turns pure steps into compiled programs.

A program runs many steps in one call, as a scan over a chunk of batches: the host is asked for nothing in between. On
one device it is `jax.jit` of that. On several, each device has the whole state and its share of every batch, and the
same steps, written for one share and the mapped axis `AXIS`, are wrapped by `jax.pmap` or `jax.shard_map`.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from adamlab.files import cache_folder
from adamlab.hyperparameters import ConfigError, choose
from adamlab.training.step import Arrays, TrainState

AXIS = "batch"


@dataclass(frozen=True)
class Devices:
    """The devices that a run is trained on, those of all processes of a job, in the order of the processes.

    Args:
      count: How many: the first ones that JAX sees.
      spmd: `pmap` or `shard_map`: what wraps a step for several devices.

    Raises:
      ConfigError: There are not so many, they are not all of a job with several processes, or `spmd` is neither.
    """

    count: int = 1
    spmd: str = "pmap"

    def __post_init__(self) -> None:
        available = jax.device_count()
        choose("spmd", self.spmd, ("pmap", "shard_map"))
        if not 1 <= self.count <= available:
            hint = "; JAX_NUM_CPU_DEVICES makes several of a CPU" if jax.default_backend() == "cpu" else ""
            raise ConfigError(f"devices must be from 1 to {available}{hint}, got {self.count}")
        if jax.process_count() > 1 and self.count != available:
            raise ConfigError(f"devices of a job with several processes must be all {available}, got {self.count}")

    @cached_property
    def mesh(self) -> Mesh:
        """The devices along one axis."""
        devices = sorted(jax.devices(), key=lambda device: device.process_index)
        return Mesh(np.array(devices[: self.count]), AXIS)

    @cached_property
    def replicated(self) -> Sharding:
        """The placement of what every device has as a whole."""
        return SingleDeviceSharding(jax.devices()[0]) if self.count == 1 else NamedSharding(self.mesh, P())

    def replicate(self, tree: Any) -> Any:
        """Host arrays that every process has, whole on every device."""
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.replicated, x, x.shape), tree)

    def abstract(self, tree: Any) -> Any:
        """The shapes of a tree, and that it is on every device."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated), tree)

    def split(self, batches: Any, pieces: int = 1, own: bool = False) -> Any:
        """Host arrays of batches, (steps, batch, ...), with each batch split over the devices.

        Args:
          batches: A tree of them. On one device they are only moved there.
          pieces: Into how many pieces each batch is cut (see `make_train_step`): every piece is split over the devices.
          own: Whether they are this process' share of each batch and not, the same in every process, the whole.

        Returns:
          Arrays (devices, steps, share, ...), one row on each device.
        """
        if self.count == 1:
            return jax.device_put(batches)
        rows = self.count // (jax.process_count() if own else 1)

        def place(x: np.ndarray) -> jax.Array:
            steps, batch, *rest = x.shape
            x = np.moveaxis(x.reshape(steps, pieces, rows, batch // (pieces * rows), *rest), 2, 0)
            x = x.reshape(rows, steps, batch // rows, *rest)
            sharding = NamedSharding(self.mesh, P(AXIS))
            return jax.make_array_from_process_local_data(sharding, x, (self.count, *x.shape[1:]))

        return jax.tree.map(place, batches)

    def describe(self) -> str:
        """The devices as they call themselves: `1 x NVIDIA H200`, `8 x cpu in 2 processes`."""
        processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
        return f"{self.count} x {jax.devices()[0].device_kind}{processes}"


def compile_training(
    devices: Devices, train_step: Callable, augment: Callable | None = None, pieces: int = 1, runs: int = 1
) -> Callable:
    """The compiled `train_chunk(state, data, indices, seeds) -> (state, losses)`.

    Args:
      devices: Where it runs.
      train_step: From a state and a batch, or one device's share of it, to the next state and the loss.
      augment: From a key, images, their places in the batch and its size to the images to train on; None to train on
        them as they are.
      pieces: Into how many pieces `train_step` cuts a batch.
      runs: How many runs are trained at once, on one device: with more than one, a leading axis of the state, the
        indices, the seeds and what is returned.

    Returns:
      A function that takes a state, whose buffers it reuses; a data set on the devices, arrays of n images; `indices`,
      int32 (steps, batch): the images of each step; and `seeds`, uint32 (steps,): of each step's augmentation. Where
      `indices` is None the data are what `Devices.split` makes of the batches themselves. It returns the state after
      the last step and the losses, float32 (steps,).
    """

    def train_chunk(
        state: TrainState, data: Arrays, indices: jax.Array | None, seeds: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def step(state: TrainState, inputs: tuple[Any, jax.Array]) -> tuple[TrainState, jax.Array]:
            chosen, seed = inputs
            batch = chosen if indices is None else {name: array[chosen] for name, array in data.items()}
            if augment is not None:
                places = _places(len(batch["image"]), devices.count, pieces)
                images = augment(jax.random.key(seed), batch["image"], *places)
                batch = batch | {"image": images}
            return train_step(state, batch)

        return lax.scan(step, state, (data if indices is None else indices, seeds))

    if runs > 1:
        return jax.jit(jax.vmap(train_chunk, (0, None, 0, 0)), donate_argnums=0)
    if devices.count == 1:
        return jax.jit(train_chunk, donate_argnums=0)
    from_memory = _spread(devices, train_chunk, (False, False, True, False))
    from_stream = _spread(devices, train_chunk, (False, True, False, False))

    def on_devices(state: TrainState, data: Arrays, indices: np.ndarray | None, seeds: np.ndarray) -> Any:
        if indices is None:
            return from_stream(state, data, None, seeds)
        return from_memory(state, data, devices.split(indices, pieces), seeds)

    return on_devices


def compile_evaluation(devices: Devices, eval_step: Callable, runs: int = 1) -> Callable:
    """The compiled `evaluate(state, batches) -> sums` over what `Devices.split` makes of (batches, batch, ...).

    With several `runs` on one device, the state and the sums have a leading axis.
    """

    def evaluate(state: TrainState, batches: Arrays) -> Arrays:
        sums = lax.map(lambda batch: eval_step(state, batch), batches)
        sums = {name: values.sum(axis=0) for name, values in sums.items()}
        return sums if devices.count == 1 else lax.psum(sums, AXIS)

    if runs > 1:
        return jax.jit(jax.vmap(evaluate, (0, None)))
    return jax.jit(evaluate) if devices.count == 1 else _spread(devices, evaluate, (False, True), donate=())


def _spread(devices: Devices, function: Callable, split: tuple[bool, ...], donate: tuple[int, ...] = (0,)) -> Callable:
    """A function of whole arguments and of rows, on every device: what it returns is the same on all of them.

    Args:
      devices: Where it runs.
      function: Written for one device and the axis `AXIS`.
      split: Which of its arguments have a row for each device.
      donate: The arguments whose buffers it may reuse.
    """
    if devices.spmd == "pmap":
        in_axes = tuple(0 if rows else None for rows in split)
        order = list(devices.mesh.devices)
        mapped = jax.pmap(function, AXIS, in_axes=in_axes, out_axes=None, devices=order, donate_argnums=donate)  # pyright: ignore[reportArgumentType]
        return lambda *arguments: _globally(devices, mapped(*arguments))

    def block(*arguments: Any) -> Any:
        pairs = zip(arguments, split, strict=True)
        return function(*(jax.tree.map(lambda x: x[0], x) if rows else x for x, rows in pairs))

    in_specs = tuple(P(AXIS) if rows else P() for rows in split)
    # Unchecked, as in pmap: a gradient is that of a device's own loss, and the step says what is averaged.
    mapped = jax.shard_map(block, mesh=devices.mesh, in_specs=in_specs, out_specs=P(), check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)


def _globally(devices: Devices, tree: Any) -> Any:
    """What pmap returns in a job of several processes, the process' part, as the array that it is a part of."""
    if jax.process_count() == 1:
        return tree

    def whole(x: jax.Array) -> jax.Array:
        parts = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, devices.replicated, parts)

    return jax.tree.map(whole, tree)


def _places(share: int, count: int, pieces: int) -> tuple[Any, ...]:
    """The places in the batch of a device's share of it, and the batch's size; none on one device, which has all."""
    if count == 1:
        return ()
    places = np.arange(share * count, dtype=np.int32).reshape(pieces, count, -1)
    return jnp.asarray(places)[:, lax.axis_index(AXIS)].reshape(-1), share * count


def keep_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second start need not compile.

    JAX's own setting, `JAX_COMPILATION_CACHE_DIR`, goes before ours. Programs for a CPU use the instructions of the
    machine that compiled them, so each kind of processor gets a folder of its own: a home is often shared by several.

    A job of several processes on CPUs gets none: process 0 alone would find its programs, and the others, which still
    compile theirs, would not meet it within the half minute that Gloo waits.
    """
    cache = cache_folder()
    if cache is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    if jax.distributed.is_initialized() and jax.process_count() > 1 and jax.default_backend() == "cpu":
        return
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features"))]  # x86, ARM
    processor = hashlib.sha256(f"{platform.machine()} {platform.processor()} {flags[:1]}".encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(cache / "xla" / processor))


def accelerator() -> str | None:
    """The kind of the first device if it is a GPU or TPU, e.g. `NVIDIA H200`; None on a CPU."""
    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind
