"""What a person sees while a grid runs: a live line on a terminal, one plain line per epoch elsewhere."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from adamlab.config import RunConfig
from adamlab.data import ArrayDataset, Dataset
from adamlab.records import Run

if TYPE_CHECKING:
    from adamlab.training.checkpoint import Position

# Training throughput on two cores of a 2.8 GHz Xeon, 32x32 images/s at batch 100, for the estimate of a study's time.
IMAGES_PER_SECOND = {"plain20": 260.0, "resnet34": 260.0, "vgg19": 60.0}


def introduce(
    console: Console, configs: Sequence[RunConfig], dataset: Dataset, chosen: bool, accelerator: str | None
) -> None:
    """Prints what will be trained on what, how long that takes on a CPU, and what must be known of the data.

    Args:
      console: Where to write.
      configs: The study's runs.
      dataset: What they are trained on.
      chosen: Whether the protocol was chosen for the device, not by the user.
      accelerator: Its name, or None on a CPU.
    """
    chosen_for = f" (chosen for {accelerator or 'a CPU'})" if chosen else ""
    size = configs[0].protocol.image_size
    pixels = dataset.train["image"][0, ..., 0].size if isinstance(dataset, ArrayDataset) else (size or 0) ** 2
    console.print(_introduction(configs, pixels, chosen_for, accelerator))
    if dataset.note:
        console.print(f"[bold yellow]{escape(dataset.note)}[/]")


def print_figures(console: Console, paths: Sequence[Path]) -> None:
    """Says where the figures are."""
    for path in paths:
        if path.suffix == ".png":
            console.print(f"figure: {escape(str(path))}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _introduction(configs: Sequence[RunConfig], pixels: int, chosen_for: str, accelerator: str | None) -> str:
    protocol = configs[0].protocol
    batches = ", ".join(str(batch) for batch in sorted({config.protocol.batch_size for config in configs}))
    held_out = "held-out training" if protocol.evaluate_on == "validation" else "test"
    text = (
        f"{_count(len(configs), 'run')} of {_count(protocol.epochs, 'epoch')} on {configs[0].dataset}: "
        f"protocol {protocol.name}{chosen_for}, {protocol.train_images:,} training and "
        f"{protocol.test_images:,} {held_out} images, batch {batches}; "
    )
    if accelerator or any(config.model not in IMAGES_PER_SECOND for config in configs):
        return text + "the time left is shown after the first epoch."
    # An evaluation pass costs about a third of a training pass per image.
    images = protocol.epochs * (protocol.train_images + protocol.test_images / 3) * pixels / 32**2
    minutes = sum(images / IMAGES_PER_SECOND[config.model] for config in configs) / 60
    estimate = f"about {minutes:.0f} min" if minutes > 1 else "about a minute"
    return text + f"{estimate} on two CPU cores (here: {os.cpu_count()})."


class Display:
    """Follows the runs of a grid, in their order.

    Args:
      console: Where to write. On a terminal one live line is kept up to date; anything else gets plain lines.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        # Where not all of it fits, the run's name is cut, then the status: the time left is what a person waits for.
        narrow = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.description}", table_column=narrow),
            *([BarColumn(bar_width=20)] if console.width >= 120 else []),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("left", table_column=Column(min_width=4, no_wrap=True)),
            TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
            expand=True,
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )

    @contextmanager
    def running(self, configs: Sequence[RunConfig]) -> Iterator[None]:
        """The display of a grid, from its first run to its last."""
        self._runs, self._number, self._skipped, self._held = len(configs), 0, 0, 0
        self._total = sum(config.protocol.total_steps for config in configs)
        with self._progress:
            self._task = self._progress.add_task("", total=self._total, status="")
            yield
        if self._skipped:
            self.console.print(f"{self._skipped} of {self._runs} runs were finished before and not trained again.")
        if self._held:
            self.console.print(f"{self._held} of {self._runs} runs are left to other processes.")

    def skip(self, config: RunConfig) -> None:
        """A run was finished before."""
        self._number, self._skipped = self._number + 1, self._skipped + 1
        self._drop(config.protocol.total_steps)

    def held(self, config: RunConfig, message: str) -> None:
        """Another process is working on a run: it is left out."""
        self._number, self._held = self._number + 1, self._held + 1
        self.console.print(f"run {self._number} of {self._runs}: {escape(message)}")
        self._drop(config.protocol.total_steps)

    def warn(self, message: str) -> None:
        """Something is not as it was left, and is not used."""
        self.console.print(f"[bold yellow]warning:[/] {escape(message)}")

    def start(self, configs: Sequence[RunConfig], position: "Position") -> None:
        """A run, or several at once, begin or go on from a position."""
        self._names = {config: self._next_name(config) for config in configs}
        self._protocol, done = configs[0].protocol, len(position.losses)
        self._done, self._accuracy = position.epochs * self._protocol.steps_per_epoch + done, ""
        self._drop(self._done * len(configs))
        if self._done:
            of = f"step {done} of epoch {position.epochs + 1}" if done else f"epoch {position.epochs}"
            for name in self._names.values():
                self.console.print(f"{name}: continued after {of}")
        self._show("compiling")

    def step(self, epoch: int, step: int, loss: float) -> None:
        """A chunk of steps of every run that is going on is done; the loss is their mean."""
        steps = (epoch - 1) * self._protocol.steps_per_epoch + step
        self._progress.advance(self._task, (steps - self._done) * len(self._names))
        self._done = steps
        self._show(f"epoch {epoch}/{self._protocol.epochs}, loss {loss:.3f}{self._accuracy}")

    def epoch(self, config: RunConfig, record: dict[str, Any]) -> None:
        """A run's epoch is done and recorded."""
        self._accuracy = f", accuracy {record['test_accuracy']:.1%}"
        if not self.console.is_terminal:
            self.console.print(f"{self._names[config]}: {_epoch(record, config)}, {record['seconds']:.1f} s")

    def end(self, config: RunConfig, outcome: dict[str, Any]) -> None:
        """A run has ended."""
        name = self._names.pop(config)
        if outcome["outcome"] == "diverged":
            self.console.print(f"{name}: {_divergence(outcome)}")
        self._drop(config.protocol.total_steps - self._done)

    def ended(self, run: Run) -> None:
        """A run has ended elsewhere."""
        name = self._next_name(run.config)
        where = f" on {run.provenance['node']}" if "node" in run.provenance else ""
        if run.ending == "diverged":
            self.console.print(f"{name}: {_divergence(run.outcome or {})}{where}")
        else:
            self.console.print(f"{name}: {_epoch(run.epochs[-1], run.config)}{where}")
        self._progress.advance(self._task, run.config.protocol.total_steps)

    def failed(self, config: RunConfig, error: str) -> None:
        """A run could not be trained elsewhere."""
        self.console.print(f"{self._next_name(config)}: failed: {escape(error)}")
        self._drop(config.protocol.total_steps)

    def _next_name(self, config: RunConfig) -> str:
        self._number += 1
        return f"run {self._number} of {self._runs}: {config.model}, {config.setting}, seed {config.seed}"

    def _show(self, status: str) -> None:
        first, *others = self._names.values()
        name = f"{first}, and {len(others)} more" if others else first
        self._progress.update(self._task, description=name, status=status)

    def _drop(self, steps: int) -> None:
        """Takes steps that will not be trained out of the total, so that the time left stays an honest estimate."""
        self._total -= steps
        self._progress.update(self._task, total=self._total)


def _epoch(record: dict[str, Any], config: RunConfig) -> str:
    return (
        f"epoch {record['epoch']}/{config.protocol.epochs}, training loss {record['train_loss']:.3f}, "
        f"test loss {record['test_loss']:.3f}, accuracy {record['test_accuracy']:.1%}"
    )


def _divergence(outcome: dict[str, Any]) -> str:
    return f"diverged at step {outcome['step']}, epoch {outcome['epoch']}"
