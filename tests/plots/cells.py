"""Records of a large-batch study, written without training, and the figures of them."""

from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.protocol import Protocol
from plots.large_batch import compose

FIGURE1, FREE, FLATTENING = "figure1-batch-size", "figure-free-epochs", "figure-flattening"
# Of one traced epoch, but for what a test says.
TRACE = {
    "gradient_norm": 2.0,
    "logit_norm": 30.0,
    "weight_norm": 40.0,
    "update_norm": 0.2,
    "angular_step": 0.05,
    "hessian_eigenvalue": 100.0,
    "layer_weight_norms": {"conv": 40.0},
    "layer_angular_steps": {"conv": 0.05},
    "trace_seconds": 1.0,
}


def write_run(out: Path, optimizer: str, batch_size: int, accuracy=0.5, outcome="finished", **changed) -> RunConfig:
    """Writes one run of 4 epochs and returns its configuration.

    The last epoch's test accuracy is `accuracy` and its test loss 1 + `accuracy`; training losses are 1/epoch.
    `changed` may be hyperparameters, entries of RunConfig and Protocol, or `traces`: what each epoch adds to `TRACE`,
    or None for one that is not measured.
    """
    traces = changed.pop("traces", None)
    amount = {"train_images": 2_000, "test_images": 1_000, "epochs": 4, "evaluate_on": "test"}
    protocol = {name: changed.pop(name, amount[name]) for name in amount}
    run = {"dataset": "cifar10", "model": "vgg19", "seed": 0, "precision": "float32"}
    run = {name: changed.pop(name, run[name]) for name in run}
    hyper = replace(OPTIMIZERS[optimizer].defaults, **changed)
    config = RunConfig(
        protocol=Protocol("lawn-laptop", batch_size=batch_size, schedule="phases", **protocol),
        hyperparameters=hyper,
        optimizer=optimizer,
        trace_every=1 if traces else 0,
        **run,
    )
    folder = records.run_folder(out, config)
    recording.open_run(folder, config, {})
    epochs = 4 if outcome == "finished" else 2
    for epoch in range(1, epochs + 1):
        final = accuracy if epoch == 4 else 0.01
        record = {"epoch": epoch, "train_loss": 1 / epoch, "test_loss": 1 + final, "test_accuracy": final}
        trace = traces[epoch - 1] if traces else None
        recording.append(folder, record if trace is None else record | TRACE | trace)
    if outcome:
        recording.append(folder, {"outcome": outcome})
    return config


def figures_of(out: Path, configs=None) -> dict[str, Figure]:
    return compose(records.read_runs(out), configs)
