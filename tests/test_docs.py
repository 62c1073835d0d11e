"""The Python examples of README.md and of the pages in docs/ run as they stand; what pages name exists."""

import ast
import itertools
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab import models
from adamlab.claims import CLAIMS
from experiments.options import make_execution

ROOT = Path(__file__).parents[1]


def examples(path):
    """A page's Python blocks by section; those before the first section have the key ""."""
    page, sections, title = ROOT / path, {"": []}, ""
    for found in re.finditer(r"^## ([^\n]+)$|^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        if found[1]:
            title = found[1]
            continue
        # Blank lines in front make a failure show the page's own line.
        line = found.string.count("\n", 0, found.start(2))
        sections.setdefault(title, []).append(compile("\n" * line + found[2], str(page), "exec"))
    return sections


LAWN = examples("docs/lawn.md")


def test_readme(monkeypatch):
    """The optimizers as published; the table over the published records."""
    line, table, adam, lawn = itertools.chain.from_iterable(examples("README.md").values())
    scope = {}
    exec(line, scope)
    params = {"kernel": jnp.ones((2, 2))}
    updates, _ = scope["optimizer"].update(params, scope["optimizer"].init(params), params)
    np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=1e-4)  # Adam's first step

    exec(adam, scope)
    # 20 steps of at most alpha each from 1: the smallest alpha, 1e-3, hardly moves; 0.18 reaches the minimum.
    assert scope["losses"].shape == (5,)
    assert 0.9 < scope["losses"][0] < 1.0
    assert scope["losses"].min() < 0.5

    exec(lawn, scope)
    updates, _ = scope["optimizer"].update(params, scope["optimizer"].init(params), params)
    # Clipped to norm 1 or not, Adam's first step is the learning rate.
    np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=1e-4)

    monkeypatch.chdir(ROOT / "docs")
    exec(table, scope)
    assert set(scope["table"]["model"]) == {"plain20", "resnet34"}


def test_every_example_of_the_guide_is_found():
    page = (ROOT / "docs/lawn.md").read_text()
    assert list(LAWN) == ["", *re.findall(r"^## (.+)$", page, flags=re.MULTILINE)]
    assert sum(map(len, LAWN.values())) == page.count("```py")


def test_start():
    scope = {}
    for block in itertools.chain.from_iterable(examples("docs/index.md").values()):
        exec(block, scope)
    assert callable(scope["optimizer"].update)


def test_what_is_added_works(monkeypatch, tmp_path):
    """The blocks assert for themselves; the model that they enter leaves again."""
    monkeypatch.setattr(models, "MODELS", models.MODELS | {})
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "page"}
    with jax.numpy_rank_promotion("allow"):
        for block in itertools.chain.from_iterable(examples("docs/extending.md").values()):
            exec(block, scope)
    assert "small" in models.MODELS


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    for path in re.findall(r"`((?:adamlab|experiments|plots|benchmarks|tests|docs)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert ((ROOT / page).parent / link).exists(), link
    for files, chosen in re.findall(r"`pytest [^`]*?(tests/[^`]*?\.py)(?: -k (\w+))?`", text):
        tests = [(ROOT / path).read_text() for path in files.split()]
        assert not chosen or any(re.search(rf"def test_\w*{chosen}", test) for test in tests), (files, chosen)


def test_the_api_pages_name_what_there_is_and_all_of_the_library():
    """In a fresh process: what is imported when it is used must not depend on what was used before."""
    named = set(re.findall(r"^::: adamlab\..*?(\w+)$", (ROOT / "docs/api/optim.md").read_text(), flags=re.MULTILINE))
    code = f"""
import adamlab
assert {{*adamlab.optim.__all__}} == {named}
assert {{*adamlab.optim.__all__}} < {{*adamlab.__all__}} < {{*dir(adamlab)}}
assert all(getattr(adamlab, name) is not None for name in adamlab.__all__)
adamlab.analysis.intervals.bootstrap, adamlab.analysis.flattening.trace
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def commands():
    """Every command line of the two studies in a page's shell blocks and records."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text().replace("\\\n", " ")
        for found in re.finditer(r"python -m experiments\.(sensitivity|large_batch)([^\n`#\"]*)", text):
            yield pytest.param(found[1], found[2], id=f"{page.relative_to(ROOT)}: {found[0]}")


@pytest.mark.parametrize(("study", "options"), list(commands()))
def test_a_command_of_a_page_is_accepted(study, options):
    main = import_module(f"experiments.{study}")
    arguments = main.parse_arguments(shlex.split(options))
    main.check_arguments(arguments)
    if arguments.launcher == "local":
        make_execution(arguments)


def rooms():
    """`docs/architecture.md`'s list: each file and folder, and its place from above."""
    listing = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    folders, places = {}, {}
    for place, line in enumerate(listing.strip().splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*([\w/.]+(?:, [\w/.]+)*)", line)[1].split(", ")
        for name in names:
            folder = next((folders[level] for level in range(depth - 1, -1, -1) if level in folders), Path())
            path = folder / name
            if name.endswith("/"):
                folders = {level: kept for level, kept in folders.items() if level < depth} | {depth: path}
            assert (ROOT / path).exists(), path
            places[path] = place
    return places


def test_a_module_imports_from_rooms_above_it_alone():
    """But for an experiment, which may call a plot; and within a folder, for files without a line of their own."""
    places = rooms()
    packages = ("adamlab", "experiments", "plots")

    def allowed(path, other):
        if path not in places and path.parent == other.parent:
            return True
        place, others = (places.get(file, places.get(file.parent, -1)) for file in (path, other))
        return others <= place or (path.parts[0], other.parts[0]) == ("experiments", "plots")

    def imported(path):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if names else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                file = Path(*name.split(".")).with_suffix(".py")
                if name.split(".")[0] in packages and (ROOT / file).exists():
                    yield file

    wrong = [
        f"{path} imports {other}"
        for package in packages
        for path in (file.relative_to(ROOT) for file in sorted((ROOT / package).rglob("*.py")))
        if path.name != "__init__.py"
        for other in imported(path)
        if not allowed(path, other)
    ]
    assert wrong == []


@pytest.mark.parametrize("title", [title for title in LAWN if title])
def test_guide_to_lawn(title, monkeypatch, tmp_path):
    """Each section runs after the page's first block, and asserts for itself."""
    if title == "Equinox":
        pytest.importorskip("equinox")
    monkeypatch.chdir(tmp_path)
    scope = {}
    # Users add biases to batches without reshaping them.
    with jax.numpy_rank_promotion("allow"):
        for block in LAWN[""] + LAWN[title]:
            exec(block, scope)


def test_pages_count_the_claims_and_those_whose_rules_were_repaired():
    pages = ["README.md", "docs/claims.md", "docs/index.md", "adamlab/claims/__init__.py", "experiments/claims.py"]
    pages += ["plots/report.html.jinja"]
    texts = {page: " ".join((ROOT / page).read_text().split()) for page in pages}
    counts = {int(found) for text in texts.values() for found in re.findall(r"(\d+)(?: of their)? claims", text)}
    names, repaired = [claim.name for claim in CLAIMS], set()
    assert counts == {len(names), sum(name.startswith("S") for name in names)}
    for row in re.findall(
        r"^\| [0-9a-f]{7}[^|]*\|([^|]*)\|", (ROOT / "docs/claims.md").read_text(), flags=re.MULTILINE
    ):
        for first, last in re.findall(r"([SL]\d+)(?: to ([SL]\d+))?", row):
            repaired |= set(names[names.index(first) : names.index(last or first) + 1])
    for page in (page for page in texts if page != "docs/index.md"):
        assert set(re.findall(r"(\d+)(?: of the \d+)?(?:, all but [^.]*?,)? were repaired", texts[page])) == {
            str(len(repaired))
        }
        assert set(re.findall(r"of the (\d+)", texts[page])) <= {str(len(CLAIMS))}
