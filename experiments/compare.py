"""Is one setting better than another? What they end with, and differences paired by seed, with intervals.

  python -m experiments.compare BASE OTHER                   two settings' folders, each of seed=0, seed=1, ...
  python -m experiments.compare BASE OTHER --epoch=16        after that epoch, also of runs that diverged later
  python -m experiments.compare BASE OTHER --comparisons=4   intervals at 1 - 5 %/4: this is one of four

Runs of one seed share initial weights, if they share the network, and at one batch size the order of the images: what
they differ by is known better than what each ends with. Intervals are Student's t, of factors on a logarithmic axis.
Trains nothing.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adamlab.analysis.intervals import student
from adamlab.analysis.sensitivity import Floats
from adamlab.command import Parser, path, run_main
from adamlab.config import flatten
from adamlab.files import RecordsError
from adamlab.hyperparameters import ConfigError
from adamlab.records import Run, read_runs

# Imported where they are needed: --help does not wait for them.
if TYPE_CHECKING:
    from rich.console import Console

SIDES = ("BASE", "OTHER")
HEAD = "head/linear/kernel"  # the one kernel that no BatchNorm follows, so that logits grow with its norm
Pair = tuple[Run, Run]


class Row(NamedTuple):
    """One number of both settings.

    Args:
      title: What it is, with its unit.
      base: Of each seed, in the setting that is compared with, (seeds,).
      other: Likewise, in the other one.
    """

    title: str
    base: Floats
    other: Floats

    def cells(self, level: float) -> list[str]:
        """The row of a table: both means, the difference, the factor, and in how many pairs the other is higher."""
        positive = (self.base > 0).all() and (self.other > 0).all()
        return [
            self.title,
            *(_digits(x.mean(), 4) + (f"\n± {_digits(x.std(ddof=1), 3)}" if len(x) > 1 else "") for x in self[1:]),
            _paired(self.other - self.base, level, float),
            _paired(np.log(self.other / self.base), level, math.exp) if positive else "",
            f"{(self.other > self.base).sum()} of {len(self.base)}",
        ]


def _paired(differences: Floats, level: float, unit: Callable[[float], float]) -> str:
    """The mean of what is paired and, where there are several, its interval below."""
    low, high = student(differences, level)
    interval = f"\n[{_digits(unit(low), 3)}, {_digits(unit(high), 3)}]" if math.isfinite(low) else ""
    return f"{_digits(unit(differences.mean()), 3)}{interval}"


def _digits(number: float, count: int) -> str:
    return f"{number:#.{count}g}".rstrip(".")


def read_setting(folder: Path) -> dict[int, Run]:
    """The runs of a setting's folder, by seed.

    Raises:
      RecordsError: There is none, one is damaged, or they are of several settings.
    """
    runs = read_runs(folder)
    settings = {run.without_seed: run.folder for run in reversed(runs)}
    if len(settings) > 1:
        some = " and ".join(str(found) for found in sorted(settings.values())[:2])
        raise RecordsError(f"{folder} must hold the seeds of one setting, got {len(settings)}, as of {some}")
    return {run.config.seed: run for run in runs}


def pair(base: dict[int, Run], other: dict[int, Run], epoch: int | None) -> tuple[list[Pair], str]:
    """The runs of each seed that can be compared, and which seeds cannot, in words.

    Args:
      base: From `read_setting`.
      other: Likewise.
      epoch: After which they are compared; None for the last one, of runs that finished.

    Raises:
      RecordsError: There is no such seed.
    """

    def missing(seed: int) -> list[str]:
        found = []
        for side, setting in zip(SIDES, (base, other), strict=True):
            run = setting.get(seed)
            if run is None:
                found.append(f"not in {side}")
            elif run.ending != "finished" if epoch is None else len(run.epochs) < epoch:
                found.append(f"{run.ending} in {side}, {len(run.epochs)} epochs")
        return found

    reasons = {seed: missing(seed) for seed in sorted(base.keys() | other.keys())}
    left_out = ", ".join(f"{seed} ({', '.join(why)})" for seed, why in reasons.items() if why)
    pairs = [(base[seed], other[seed]) for seed, why in reasons.items() if not why]
    if not pairs:
        asked = "finished" if epoch is None else f"trained for {epoch} epochs"
        raise RecordsError(f"expected a seed that both settings have {asked}, got seeds {left_out}")
    return pairs, left_out


def rows(pairs: Sequence[Pair], epoch: int | None) -> tuple[list[Row], list[str]]:
    """Every number of the records that all runs have, as `plots.style.METRICS` names them, and the names of the others.

    Then the norm of the head's kernel, where the records have it, and the lowest loss and the highest accuracy of any
    epoch: where a loss rises late, they show how much of a difference is that. They flatter both sides, being chosen
    on the images that they are of.

    Args:
      pairs: From `pair`.
      epoch: As there.
    """
    from plots.flattening import LOWEST
    from plots.style import METRICS

    kind = pairs[0][0].config.protocol.evaluate_on
    found, left_out = [], []
    records = [[run.epochs[-1 if epoch is None else epoch - 1] for run in both] for both in pairs]
    for name, metric in METRICS.items():
        title = metric.label.replace("\n", " ").replace("test", kind)
        numbers = [[record.get(name) for record in both] for both in records]
        # A learning rate that has come to 0 turns no weights: what is left of the angle is rounding.
        lowest = LOWEST[name] if name == "angular_step" else -math.inf
        if all(number is not None and number > lowest for both in numbers for number in both):
            base, other = metric.factor * np.array(numbers, np.float64).T
            found.append(Row(f"{title}, {metric.unit}" if metric.unit else title, base, other))
        elif any(name in record for both in pairs for run in both for record in run.epochs):
            left_out.append(title)
    norms = [[record.get("layer_weight_norms", {}).get(HEAD) for record in both] for both in records]
    if all(norm is not None for both in norms for norm in both):
        found.append(Row("weight norm, head", *np.array(norms, np.float64).T))
    for name, which, best in (("test_loss", "lowest", min), ("test_accuracy", "highest", max)):
        metric = METRICS[name]
        numbers = [[best(record[name] for record in run.epochs[:epoch]) for run in both] for both in pairs]
        base, other = metric.factor * np.array(numbers, np.float64).T
        found.append(Row(f"{which} {metric.label.replace('test', kind)}, {metric.unit}", base, other))
    return found, left_out


def print_comparison(
    console: "Console", folders: Sequence[Path], pairs: Sequence[Pair], epoch: int | None, comparisons: int
) -> None:
    """Prints how the settings differ, and a row for each of their numbers.

    Args:
      console: Where to write.
      folders: BASE and OTHER.
      pairs: From `pair`.
      epoch: As there.
      comparisons: Of how many this is one.
    """
    from rich.table import Table

    configs = [flatten(run.config.to_dict()) for run in pairs[0]]
    differing = [name for name in configs[0] if configs[0][name] != configs[1][name] and name != "trace_every"]
    for side, folder, config, run in zip(SIDES, folders, configs, pairs[0], strict=True):
        said = [f"{name} {config[name]}" for name in differing]
        said += [f"after epoch {epoch or len(run.epochs)} of {run.config.protocol.epochs}"]
        console.print(f"{side:5}  {folder}: {', '.join(said)}", markup=False, soft_wrap=True)
    level = 1 - 0.05 / comparisons
    found, left_out = rows(pairs, epoch)
    table = Table()
    for column in ("", *SIDES, "OTHER - BASE", "OTHER / BASE", "OTHER\nhigher"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for row in found:
        table.add_row(*row.cells(level))
        table.add_section()
    console.print(table)
    if left_out:
        console.print(f"Not in all of these records: {', '.join(left_out)}.", markup=False)
    if len(pairs) > 1:
        level_said = f"{100 * level:.6g} % intervals" + (f", of {comparisons} comparisons" if comparisons > 1 else "")
        console.print(f"±: standard deviation over seeds. Brackets, paired by seed: {level_said}.")


def main() -> None:
    """Prints what the command line asks for."""
    parser = Parser("experiments.compare", __doc__)
    parser.add_argument("base", type=path, metavar="BASE", help="the folder of the setting that is compared with")
    parser.add_argument("other", type=path, metavar="OTHER", help="that of the other setting")
    parser.add_argument("--epoch", type=int, metavar="N", help="compare after that epoch (default: each run's last)")
    parser.add_argument("--comparisons", type=int, default=1, metavar="N", help="of N comparisons this is one")
    arguments = parser.parse_args()
    for name in ("epoch", "comparisons"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1, got {value}")

    from rich.console import Console

    folders = arguments.base, arguments.other
    pairs, left_out = pair(read_setting(folders[0]), read_setting(folders[1]), arguments.epoch)
    console = Console(highlight=False)
    print_comparison(console, folders, pairs, arguments.epoch, arguments.comparisons)
    if left_out:
        console.print(f"Seeds left out: {left_out}.", markup=False)


if __name__ == "__main__":
    run_main(main, "experiments.compare")
