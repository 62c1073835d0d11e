"""Saves and restores the state of a run with Orbax, one checkpoint per epoch, the newest kept."""

import shutil
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run.

    Saving is synchronous: the training step donates its buffers, and on a CPU Orbax may still be reading them.

    Args:
      folder: Where they are kept; made at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._manager: ocp.CheckpointManager | None = None

    def latest_epoch(self) -> int | None:
        """The newest epoch that can be restored; None where there is none."""
        return self._open().latest_step() if self.folder.exists() else None

    def restore(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The newest epoch's number and state, shaped and placed like `abstract_state`; None where there is none."""
        epoch = self.latest_epoch()
        if epoch is None:
            return None
        return epoch, self._open().restore(epoch, args=ocp.args.StandardRestore(abstract_state))

    def save(self, epoch: int, state: Any) -> None:
        """Saves the state after `epoch` epochs, whole or not at all, and drops the one before."""
        self._open().save(epoch, args=ocp.args.StandardSave(state))

    def delete(self) -> None:
        """Removes the folder: a finished run needs no checkpoint."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Lets go of the folder."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        return self._manager
