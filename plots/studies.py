"""What the figures of all studies share: which runs belong together, what stands above the panels, where files go."""

import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adamlab.claims.published import set_name
from adamlab.command import Parser, path
from adamlab.files import RecordsError, WriteError, make_folder
from adamlab.hyperparameters import OPTIMIZERS
from adamlab.records import Run, read_runs

# matplotlib is imported where it is needed: --help does not wait for it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the papers, by the schedule of their studies.
DATASETS = {
    "constant": {"cifar10": "CIFAR-10"},
    "phases": {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet2012": "ImageNet"},
}
# Choices which change what is trained, in the words of a heading. Our reading of the papers goes without saying.
WORDING = {
    ("stem", "cifar"): "CIFAR stem",
    ("downsample", "first"): "first layer of a set downsamples",
    ("precision", "bf16"): "bf16",
    ("epsilon_placement", "inside"): r"$\epsilon$ inside the root",
}


def find_studies(results: Path) -> "dict[Path, list[Run]]":
    """The runs of each study below `results`, by its path relative to `results`, which may be a study itself.

    Raises:
      RecordsError: There is no run, a run is damaged, or `results` is a part of a study.
    """
    base = Path(os.path.abspath(results))  # not resolved: a study may be a link to another disk
    studies = defaultdict(list)
    for run in read_runs(results):
        # <study>/<model>/<setting>/<seed>, as adamlab.records lays them out.
        study = Path(os.path.abspath(run.folder / "../../.."))
        if not study.is_relative_to(base):
            raise RecordsError(f"{results} is a part of the study {study}; give that folder or one above it")
        studies[study.relative_to(base)].append(run)
    return dict(studies)


def gather(results: Sequence[Path]) -> dict[str, list[Run]]:
    """The runs of every study below several folders, each study once, by its path as a reader finds it.

    Raises:
      RecordsError: There is no run, a run is damaged, or a folder is a part of a study.
    """
    found: dict[Path, tuple[str, list[Run]]] = {}
    for below in results:
        for study, runs in find_studies(below).items():
            found.setdefault((below / study).resolve(), ((below / study).as_posix(), runs))
    return dict(found.values())


def draw_studies(results: Path, out: Path | None, compose: "Callable[[list[Run]], Mapping[str, Figure]]") -> list[Path]:
    """Writes the figures of every study below `results`.

    Args:
      results: A study's folder, or any folder above.
      out: Where figures go, each study's where the study lies below `results`; by default into a folder `figures` of
        the study itself.
      compose: From one study's runs to its figures, by the name of their files.

    Returns:
      The files written, a PNG and an SVG per figure.

    Raises:
      RecordsError: There is no run, a run is damaged, or there can be no folder of that name.
      WriteError: The disk does not take a figure.
    """
    from matplotlib import rc_context

    from plots import style

    paths = []
    for study, runs in find_studies(results).items():
        folder = out / study if out else results / study / "figures"
        with rc_context(style.RC):
            for name, figure in compose(runs).items():
                make_folder(folder)
                try:
                    paths += style.save(figure, folder / name)
                except OSError as error:
                    raise WriteError(f"cannot write figures to {folder}: {error.strerror}") from None
    return paths


def draw_command(parser: Parser, draw: Callable[[Path, Path | None], Sequence[Path]], missing: str) -> None:
    """Draws what the command line names, and prints the files.

    Args:
      parser: The command's, without arguments.
      draw: From the results folder, and where figures go, to the files written.
      missing: What to say where there are none, with `{}` for the folder.

    Raises:
      RecordsError: There is nothing to draw. And as `draw_studies`.
      WriteError: As there.
    """
    parser.add_argument("results", type=path, metavar="RESULTS", help="a results folder: one study's, or any above")
    parser.add_argument("--out", type=path, metavar="DIR", help="where figures go (default: each study's own figures/)")
    arguments = parser.parse_args()
    paths = draw(arguments.results, arguments.out)
    if not paths:
        raise RecordsError(f"nothing to draw: {missing.format(arguments.results)}")
    print(*paths, sep="\n")


def optimizers_of(runs: Iterable[Run]) -> list[str]:
    """Those that runs were trained with, in the order of `OPTIMIZERS`."""
    found = {run.config.optimizer for run in runs}
    return [name for name in OPTIMIZERS if name in found]


def heading(title: str, runs: Sequence[Run], notes: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """The lines above the panels, with their properties: what is shown, on what it was trained, how to read it.

    A data set that is not the paper's gets a warning.

    Args:
      title: The first line.
      runs: What is shown, all of one study.
      notes: How to read it; the choices of `WORDING` are added.
    """
    from plots import style

    config, protocols = runs[0].config, {run.config.protocol for run in runs}
    held_out = " held-out training" if config.protocol.evaluate_on == "validation" else " test"
    seeds = Counter(run.without_seed for run in runs).values()
    datasets = DATASETS[config.protocol.schedule]
    known = datasets.get(set_name(config.dataset))
    name = known or f"{config.dataset}, NOT {' or '.join(datasets.values())}"
    trained = (
        f"{name}: protocol {config.protocol.name}, {span(p.train_images for p in protocols)} training and "
        f"{span(p.test_images for p in protocols)}{held_out} images, batch {span(p.batch_size for p in protocols)}, "
        f"{span((p.epochs for p in protocols), 'epoch')}, {span(seeds, 'seed')}"
    )
    said = ["tuning study: no test image was seen"] if config.protocol.evaluate_on == "validation" else []
    said += ["BatchNorm over parts of a batch"] if any(r.config.microbatch or r.config.norm_group for r in runs) else []
    said += [WORDING[choice] for choice in WORDING if any(getattr(r.config, choice[0]) == choice[1] for r in runs)]
    look, width = (style.DETAIL, 145) if known else (style.WARNING, 110)  # characters of a line
    return [
        (title, style.TITLE),
        *((line, look) for line in textwrap.wrap(trained, width)),
        *((line, style.DETAIL) for line in textwrap.wrap("; ".join([*said, *notes]), 145)),
    ]


def span(numbers: Iterable[int], unit: str = "") -> str:
    """The one number, or the smallest and the largest.

    >>> span([8, 8], "epoch"), span([3, 1], "seed"), span([1], "seed")
    ('8 epochs', '1 to 3 seeds', '1 seed')
    """
    ordered = sorted(numbers)
    text = " to ".join(f"{number:,}" for number in dict.fromkeys([ordered[0], ordered[-1]]))
    return f"{text} {unit}{'' if text == '1' else 's'}" if unit else text
