"""One page with all that records say: what was run, the papers' claims, figures, tables, indices, provenance.

  python -m plots.report results -o report.html            every study below results/
  python -m plots.report results docs/results              of several folders; writes report.html

The page needs nothing else, no network and no script: figures are in it. The same records give the same page.
Beside each figure stands what the papers claim of it, and what comes of that in our records (adamlab/claims).
"""

import base64
import errno
import io
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adamlab.claims import CLAIMS, PAPERS, Claim, Judgement, judge
from adamlab.claims.evidence import on_a_papers_set
from adamlab.claims.words import by_seed, decisive, describe
from adamlab.command import Parser, path, run_main
from adamlab.files import RecordsError, WriteError, make_folder, write_whole
from adamlab.records import Run
from plots.studies import gather

# matplotlib is imported where it is needed: --help does not wait for it.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plots.numbers import Table

DPI = 120
# What the papers say of a figure, by the beginning of its name; of others they say nothing.
SAID = {
    "figure1-training-loss": ("S2", "S3", "S4", "S5", "S6", "S7", "S8"),
    "figure2-perturbation": ("S1",),
    "figure3-test-loss": ("S10", "S11", "S13", "S14"),
    "figure4-test-accuracy": ("S9", "S10", "S11", "S12", "S13"),
    "figure-ranking": ("S2",),
    "figure1-batch-size": ("L1", "L2", "L3", "L4", "L5", "L8"),
    "figure-free-epochs": ("L6",),
    "figure-flattening": ("L7",),
}
WORDS = {
    r"\beta_1": "beta1",
    r"\beta_2": "beta2",
    r"E_{free}": "E_free",
    r"\times": "x",
}


class Picture(NamedTuple):
    """A figure of the page.

    Args:
      title: Its heading.
      alt: What it shows, for who does not see it.
      source: The image as a data URI, with its size in pixels.
      claims: What a paper says of it, with the verdict and, where there are several, what that is of.
    """

    title: str
    alt: str
    source: str
    width: int
    height: int
    claims: list[tuple[Claim, str, str]]


class Section(NamedTuple):
    """What the page has of a study."""

    name: str
    what: "Table"
    pictures: list[Picture]
    tables: "list[Table]"
    provenance: "Table"
    note: str


def compose(runs: list[Run]) -> "dict[str, Figure]":
    """The figures of one study; none of a tuning study, whose numbers are no results."""
    from plots import large_batch, sensitivity

    if runs[0].config.protocol.evaluate_on != "test":
        return {}
    return large_batch.compose(runs) | sensitivity.compose_all(runs)  # one of them has none


def make_picture(name: str, figure: "Figure", judgements: list[Judgement]) -> Picture:
    """The figure in 36 colours as lossless WebP, which keeps the page below a megabyte."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    image = Image.open(buffer).convert("RGB").quantize(36).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    labels = figure.get_supxlabel(), figure.get_supylabel()
    title, *notes = (plain(text.get_text()) for text in figure.texts if text.get_text() not in labels)
    panels = dict.fromkeys(plain(axes.get_title()) for axes in figure.axes if axes.get_title())
    rows = dict.fromkeys(plain(axes.get_ylabel()) for axes in figure.axes if axes.get_ylabel())
    said = [title, *notes, f"Panels: {'; '.join(panels)}", f"Rows: {'; '.join(rows)}" if rows else ""]
    alt = ". ".join(filter(None, said)) + "."
    start, model = name, ""
    if name.startswith("figure-flattening"):  # of one network each, where there are several
        start, model = "figure-flattening", name.removeprefix("figure-flattening").lstrip("-")
    claims = []
    for claim in (claim for claim in CLAIMS if claim.name in SAID.get(start, ())):
        found = [j for j in judgements if j.claim == claim and model in ("", j.study.model)]
        several = [(claim, j.verdict, j.study.scope) for j in found]
        claims += several if len(several) > 1 else [(claim, found[0].verdict if found else "not judged here", "")]
    return Picture(title, alt, source, image.width, image.height, claims)


def plain(text: str) -> str:
    r"""A label without mathematics.

    >>> plain(r"plain20, $\beta_1$")
    'plain20, beta1'
    """
    return re.sub(r"\$(.*?)\$", lambda found: WORDS.get(found[1], found[1].strip("\\")), text).replace("\n", " ")


def make_section(name: str, runs: list[Run], judgements: list[Judgement]) -> Section:
    """What the page has of one study."""
    from matplotlib import rc_context

    from plots import numbers, style

    with rc_context(style.RC):
        pictures = [make_picture(name, figure, judgements) for name, figure in compose(runs).items()]
    notes = []
    if not on_a_papers_set(runs[0].config):
        notes.append("The paper did not train on this data set: no claim is judged by it.")
    if runs[0].config.protocol.evaluate_on != "test":
        notes.append("Tuning, evaluated on held-out training images: no test image was seen, no claim is judged by it.")
    return Section(
        name, numbers.what_was_run(runs), pictures, numbers.tables(runs), numbers.provenance(runs), " ".join(notes)
    )


def render(studies: dict[str, list[Run]]) -> str:
    """The page.

    Args:
      studies: The runs of each study, by the name that it shall have.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    judged = {name: judge(name, runs) for name, runs in studies.items()}
    by_claim = {claim: [j for found in judged.values() for j in found if j.claim == claim] for claim in CLAIMS}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = Counter(verdict for found in by_claim.values() for verdict in {j.verdict for j in found} or {"not run"})
    return environment.get_template("report.html.jinja").render(
        claims=by_claim,
        papers=PAPERS,
        reduced=not any(j.study.is_papers for found in judged.values() for j in found),
        counts={verdict: counts[verdict] for verdict in ("reproduced", "contradicted", "inconclusive", "not run")},
        studies=[make_section(name, runs, judged[name]) for name, runs in studies.items()],
        describe=describe,
        decisive=decisive,
        by_seed=by_seed,
        folders=lambda number: list(dict.fromkeys(run.folder.as_posix() for run in number.runs)),
    )


def main() -> None:
    """Writes the page that the command line asks for, and prints its path."""
    parser = Parser("plots.report", __doc__)
    parser.add_argument(
        "results", type=path, nargs="+", metavar="RESULTS", help="results folders: studies, or any above"
    )
    parser.add_argument(
        "-o", "--out", type=path, metavar="FILE", default=Path("report.html"), help="(default: report.html)"
    )
    arguments = parser.parse_args()
    if os.path.isdir(arguments.out):  # which, unlike Path's, says no of a name that is too long
        raise RecordsError(f"cannot write the report to {arguments.out}: it is a folder")
    page = render(gather(arguments.results))
    make_folder(arguments.out.parent)
    try:
        write_whole(arguments.out, page)
    except OSError as error:
        kind = RecordsError if error.errno == errno.ENAMETOOLONG else WriteError  # bad input, or the disk's fault
        raise kind(f"cannot write the report to {arguments.out}: {error.strerror}") from None
    print(arguments.out)


if __name__ == "__main__":
    run_main(main, "plots.report")
