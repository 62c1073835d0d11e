"""Is one setting better than another? What they end with, and differences paired by seed, with intervals.

  python -m experiments.compare BASE OTHER                   two settings' folders, each of seed=0, seed=1, ...
  python -m experiments.compare BASE OTHER --epoch=16        after that epoch instead of the last one
  python -m experiments.compare BASE OTHER --comparisons=4   one of four: intervals at 1 - 5 %/4 (Bonferroni)

Runs of one seed share initial weights and, at one batch size, the order of the images: what they differ by is known
better than what each ends with. Intervals are Student's t, of factors on a logarithmic axis. Trains nothing; the paired
numbers on the pages of docs/results are from here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adamlab.analysis.intervals import student
from adamlab.analysis.sensitivity import Floats
from adamlab.command import Parser, path, run_main
from adamlab.config import difference
from adamlab.files import RecordsError
from adamlab.hyperparameters import ConfigError
from adamlab.records import Run, read_runs

# Imported where they are needed: --help does not wait for them.
if TYPE_CHECKING:
    from rich.console import Console


class Row(NamedTuple):
    """One number of both settings.

    Args:
      title: What it is, with its unit.
      base: Of each seed, in the setting that is compared with.
      other: Likewise, in the other one.
    """

    title: str
    base: tuple[float, ...]
    other: tuple[float, ...]

    def cells(self, level: float) -> list[str]:
        """The row of a table: both means, the difference, the factor, and how many pairs it is higher in."""
        base, other = np.array(self.base, np.float64), np.array(self.other, np.float64)
        spread = (lambda x: f"\n± {x.std(ddof=1):.3g}") if len(base) > 1 else (lambda x: "")
        factor = ""
        if (base > 0).all() and (other > 0).all():
            factor = _paired(np.log(other / base), level, math.exp)
        return [
            self.title,
            *(f"{x.mean():.4g}{spread(x)}" for x in (base, other)),
            _paired(other - base, level, float),
            factor,
            f"{(other > base).sum()} of {len(base)}",
        ]


def _paired(differences: Floats, level: float, unit: Callable[[float], float]) -> str:
    """The mean of what is paired and, where there are several, its interval below."""
    low, high = student(differences, level)
    interval = f"\n[{unit(low):.3g}, {unit(high):.3g}]" if math.isfinite(low) else ""
    return f"{unit(differences.mean()):.3g}{interval}"


def read_setting(folder: Path) -> dict[int, Run]:
    """The runs of a setting's folder, by seed.

    Raises:
      RecordsError: There is none, one is damaged, or they are of several settings.
    """
    from plots.studies import setting

    runs = read_runs(folder)
    settings = list(dict.fromkeys(run.folder.parent for run in runs))
    if len(settings) > 1 or len({setting(run) for run in runs}) > 1:
        raise RecordsError(f"{folder} holds {len(settings)} settings; expected one, such as {settings[0]}")
    return {run.config.seed: run for run in runs}


def rows(pairs: Sequence[tuple[Run, Run]], epoch: int) -> list[Row]:
    """Every number that all runs have at an epoch, as `plots.style.METRICS` names them."""
    from plots.flattening import LOWEST
    from plots.style import METRICS

    records = [[run.epochs[epoch - 1] for run in pair] for pair in pairs]
    found = []
    for name, metric in METRICS.items():
        numbers = [record.get(name) for pair in records for record in pair]
        # A learning rate that has come to 0 turns no weights: what is left of the angle is rounding.
        turned = name != "angular_step" or all(number and number > LOWEST[name] for number in numbers)
        if turned and None not in numbers:
            title = ", ".join(filter(None, [metric.label.replace("\n", " "), metric.unit]))
            base, other = (tuple(metric.factor * pair[side][name] for pair in records) for side in (0, 1))
            found.append(Row(title, base, other))
    return found


def print_comparison(
    console: "Console", base: dict[int, Run], other: dict[int, Run], epoch: int | None, comparisons: int
) -> None:
    """Prints how the settings differ, and a row for each of their numbers.

    Raises:
      ConfigError: The epoch is none of both.
      RecordsError: No seed finished in both.
    """
    from rich.table import Table

    settings = base, other
    seeds = [s for s in sorted(base.keys() & other.keys()) if all(x[s].ending == "finished" for x in settings)]
    if not seeds:
        endings = [", ".join(f"{s} {runs[s].ending}" for s in sorted(runs)) for runs in settings]
        raise RecordsError(f"expected a seed that finished in both settings, got {endings[0]} and {endings[1]}")
    pairs = [(base[seed], other[seed]) for seed in seeds]
    last = min(run.config.protocol.epochs for run in pairs[0])
    if epoch is not None and not 1 <= epoch <= last:
        raise ConfigError(f"--epoch must be from 1 to {last}, got {epoch}")
    left_out = sorted((base.keys() | other.keys()) - set(seeds))
    level = 1 - 0.05 / comparisons
    for name, setting in zip(("BASE ", "OTHER"), settings, strict=True):
        console.print(f"{name}  {setting[seeds[0]].folder.parent}", markup=False)
    differing = difference(*(replace(run.config, trace_every=0) for run in reversed(pairs[0])))
    console.print(f"OTHER here, BASE there: {differing or 'the same configuration'}", markup=False)
    said = f"after epoch {epoch}" if epoch else "after the last epoch"
    said += f", seeds {', '.join(map(str, seeds))}"
    said += f" (left out, not finished in both: {', '.join(map(str, left_out))})" if left_out else ""
    table = Table(title=said, title_justify="left", title_style="bold")
    columns = ("", "BASE", "OTHER", "OTHER - BASE", "OTHER / BASE", "OTHER higher")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for row in rows(pairs, epoch or last):
        table.add_row(*row.cells(level))
        table.add_section()
    console.print(table)
    console.print(f"±: standard deviation over seeds. Brackets: {100 * level:.4g} % intervals, paired by seed.")


def main() -> None:
    """Prints what the command line asks for."""
    parser = Parser("experiments.compare", __doc__)
    parser.add_argument("base", type=path, metavar="BASE", help="the folder of the setting that is compared with")
    parser.add_argument("other", type=path, metavar="OTHER", help="that of the other setting")
    parser.add_argument("--epoch", type=int, metavar="N", help="compare after that epoch (default: the last)")
    parser.add_argument("--comparisons", type=int, default=1, metavar="N", help="of how many this is one (default: 1)")
    arguments = parser.parse_args()
    if arguments.comparisons < 1:
        raise ConfigError(f"--comparisons must be at least 1, got {arguments.comparisons}")

    from rich.console import Console

    settings = read_setting(arguments.base), read_setting(arguments.other)
    console = Console(highlight=False, soft_wrap=True)
    print_comparison(console, *settings, arguments.epoch, arguments.comparisons)


if __name__ == "__main__":
    run_main(main, "experiments.compare")
