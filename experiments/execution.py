"""How a study's runs are carried out, in this process or in one that an engine starts. It decides no number."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adamlab.command import make_deterministic
from adamlab.files import one_line
from adamlab.hyperparameters import ConfigError

# Imported where they are needed: what a study refuses, it refuses before that.
if TYPE_CHECKING:
    from adamlab.data import Dataset
    from adamlab.training.parallel import Devices


@dataclass(frozen=True)
class Execution:
    """What all runs of a study share that is not in their configurations.

    Args:
      data_dir: Where the data are, as for `adamlab.data.load`, which has the next two as well.
      workers: Processes that decode what is streamed.
      skip_corrupt: Whether what cannot be decoded is left out.
      devices: How many a batch is split over; None for all that a process sees.
      spmd: What maps a step over several.
      deterministic: Whether a GPU gives the same bits at every start.
      checkpoint_minutes: How long training goes on within an epoch without a checkpoint.
      vmap: How many runs one program trains at once.
    """

    data_dir: Path | None = None
    workers: int | None = None
    skip_corrupt: bool = False
    devices: int | None = None
    spmd: str = "pmap"
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    vmap: int = 1

    def load(self, name: str) -> "Dataset":
        """The data set of that name.

        Raises:
          DataError: It is missing or damaged.
        """
        from adamlab.data import load

        return load(name, self.data_dir, self.workers, self.skip_corrupt)

    def prepare(self) -> None:
        """Sets what must be set before JAX starts."""
        if self.deterministic:
            make_deterministic()

    def find_devices(self, images: int | None = None) -> "Devices":
        """The devices of this process or job; JAX starts.

        Args:
          images: That are to be split over them: where no number was asked for, the most that divide these.

        Raises:
          ConfigError: JAX finds no device, there are no such devices, or several for runs that are vmapped.
        """
        import jax

        from adamlab.data.order import largest_divisor
        from adamlab.training.parallel import Devices

        asked = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
        if not asked.isdigit() or int(asked) < 1:
            raise ConfigError(f"JAX_NUM_CPU_DEVICES must be a number of devices, at least 1, got {asked!r}")
        try:
            available = jax.device_count()
        except RuntimeError as error:  # such as JAX_PLATFORMS=cuda without CUDA
            raise ConfigError(f"JAX cannot start: {one_line(error)}") from None
        count = available if self.devices is None else self.devices
        if images is not None and self.devices is None:
            count = largest_divisor(images, count)
        devices = Devices(count, self.spmd)
        if self.vmap > 1 and devices.count > 1:
            raise ConfigError(f"--vmap={self.vmap} trains on one device: needs --devices=1, got {devices.count}")
        return devices
