"""What do our records say about the papers' claims?

  python -m experiments.claims                       of docs/results, or of results where that is not there
  python -m experiments.claims results docs/results  of these folders
  python -m experiments.claims --claim=S3            one claim: its rule, its numbers and the runs behind them

One line per claim (S1-S14 of the sensitivity paper, L1-L8 of the LAWN paper) and study: reproduced, contradicted,
inconclusive or not run. Trains nothing. adamlab/claims has the rules. Half of them were committed before any run of
what they vary; 17 of the 22 were repaired after: docs/claims.md says which.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adamlab.command import Parser, path, run_main
from adamlab.files import RecordsError
from adamlab.hyperparameters import ConfigError

# Imported where they are needed: --help does not wait for them.
if TYPE_CHECKING:
    from rich.console import Console

    from adamlab.claims import Claim, Judgement

STYLES = {"reproduced": "green", "contradicted": "red", "inconclusive": "yellow", "not run": "dim"}


def print_table(console: "Console", claims: "tuple[Claim, ...]", judgements: "list[Judgement]") -> None:
    """One row per claim and study, and for each the number that decides."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from adamlab.claims.words import decisive, describe

    table = Table(title="The papers' claims", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("the paper says", ratio=2, overflow="fold")
    table.add_column("our records say: verdict, study, the number that decides", ratio=3, overflow="fold")
    for claim in claims:
        lines = []
        for judgement in (found for found in judgements if found.claim == claim):
            holding = sum(judgement.state(number) == "holds" for number in judgement.numbers)
            lines += [
                Text(f"{judgement.verdict}, {holding} of {len(judgement.numbers)} hold", STYLES[judgement.verdict]),
                Text(f"{judgement.study.name}, {judgement.study.scope}"),
                Text(describe(decisive(judgement))),
            ]
        table.add_row(claim.name, claim.statement, Group(*lines or [Text("not run", STYLES["not run"])]))
        table.add_section()
    console.print(table)
    console.print("Intervals: 95 %, Student's t over seeds that are paired. --claim=NAME shows a rule and its runs.")


def print_claim(console: "Console", claim: "Claim", judgements: "list[Judgement]") -> None:
    """The claim, its rule and, for each study, every number with the runs that it is from."""
    from rich.markup import escape

    from adamlab.claims import PAPERS
    from adamlab.claims.words import by_seed, describe

    console.print(f"[bold]{claim.name}[/]  {claim.statement}")
    console.print(f"Source: {PAPERS[claim.name[0]]}, {claim.section}.")
    console.print(f"Rule: {claim.rule}")
    if not judgements:
        console.print(
            "\n[dim]not run[/]: no study has any of these runs, or none of the protocol or data set that it asks for"
        )
    for judgement in judgements:
        study, verdict = judgement.study, judgement.verdict
        console.print(f"\n[bold]{escape(study.name)}[/], {escape(study.scope)}: [{STYLES[verdict]}]{verdict}[/]")
        for number in judgement.numbers:
            console.print(f"  {judgement.state(number)}: {describe(number)}", markup=False)
            if number.samples:
                console.print(f"      by seed: {by_seed(number)}", markup=False)
            for setting in dict.fromkeys(run.folder.parent for run in number.runs):
                seeds = dict.fromkeys(run.config.seed for run in number.runs if run.folder.parent == setting)
                console.print(f"      {setting.as_posix()}/seed={','.join(map(str, seeds))}", markup=False)


def main() -> None:
    """Prints what the command line asks for."""
    parser = Parser("experiments.claims", __doc__)
    parser.add_argument("results", type=path, nargs="*", metavar="RESULTS", help="results folders (default: see above)")
    parser.add_argument("--claim", metavar="NAME", help="one claim alone, with all that is behind its verdict")
    arguments = parser.parse_args()

    from rich.console import Console

    from adamlab.claims import CLAIMS, judge
    from plots.studies import gather

    claims = tuple(claim for claim in CLAIMS if arguments.claim in (None, claim.name))
    if not claims:
        raise ConfigError(f"--claim must be one of {', '.join(c.name for c in CLAIMS)}, got {arguments.claim!r}")
    published = Path("docs/results")
    results = arguments.results or [published if published.is_dir() else Path("results")]
    for folder in results:
        if not os.path.isdir(folder):  # which a name that is too long is not, either
            raise RecordsError(f"no runs below {folder}: it is not a folder")
    judgements = [judgement for name, runs in gather(results).items() for judgement in judge(name, runs, claims)]
    console = Console(highlight=False, soft_wrap=arguments.claim is not None)
    if arguments.claim:
        print_claim(console, claims[0], judgements)
    else:
        print_table(console, claims, judgements)


if __name__ == "__main__":
    run_main(main, "experiments.claims")
