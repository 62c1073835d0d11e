"""Records of a sensitivity study, written without training."""

from dataclasses import replace
from pathlib import Path

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.hyperparameters import MAGNITUDE, OPTIMIZERS, Hyperparameters
from adamlab.protocol import Protocol

PROTOCOL = Protocol("laptop", train_images=5_000, test_images=2_000, batch_size=100, epochs=3)
LOSSES = (2.0, 1.0, 0.5)
ADAM = {name: MAGNITUDE[name] for name in ("alpha", "beta1", "beta2", "epsilon")}


def write_run(out: Path, losses=LOSSES, outcome="finished", *, model="plain20", dataset="cifar10", seed=0, **changed):
    """Writes one run: its training losses, test losses ten times and accuracies a tenth of them; `changed` may be
    hyperparameters or entries of RunConfig."""
    hyper = {name: changed.pop(name) for name in list(changed) if name in MAGNITUDE}
    defaults = OPTIMIZERS[changed.get("optimizer", "adam")].defaults
    config = RunConfig(dataset, model, PROTOCOL, replace(defaults, **hyper), seed, **changed)
    folder = records.run_folder(out, config)
    if recording.open_run(folder, config, {}).outcome:
        return  # the default setting, of another grid
    for epoch, loss in enumerate(losses, start=1):
        recording.append(
            folder, {"epoch": epoch, "train_loss": loss, "test_loss": 10 * loss, "test_accuracy": loss / 10}
        )
    if outcome:
        recording.append(folder, {"outcome": outcome})


def write_grid(out: Path, grid: dict[str, tuple[float, ...]], **options) -> None:
    """Writes every run of a grid, the default setting once."""
    settings = {replace(Hyperparameters(), **{name: value}) for name, values in grid.items() for value in values}
    for setting in settings:
        write_run(out, **{name: getattr(setting, name) for name in MAGNITUDE}, **options)
