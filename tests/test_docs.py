"""The Python examples of README.md and of the pages in docs/ run as they stand; files that pages name exist."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamlab import models

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
    table, adam, lawn = itertools.chain.from_iterable(examples("README.md").values())
    scope = {}
    exec(adam, scope)
    # 20 steps of at most alpha each from 1: the smallest alpha, 1e-3, hardly moves; 0.18 reaches the minimum.
    assert scope["losses"].shape == (5,)
    assert 0.9 < scope["losses"][0] < 1.0
    assert scope["losses"].min() < 0.5

    exec(lawn, scope)
    params = {"kernel": jnp.ones((2, 2))}
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


def test_what_is_added_works(monkeypatch):
    """The blocks assert for themselves; the model that they enter leaves again."""
    monkeypatch.setattr(models, "MODELS", models.MODELS | {})
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
