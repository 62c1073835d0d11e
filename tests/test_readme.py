"""README's Python examples run as they stand."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_examples_run(monkeypatch):
    """The optimizer as published; the table over the published records."""
    table, optimizer = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    scope = {}
    exec(optimizer, scope)
    # 20 steps of at most alpha each from 1: the smallest alpha hardly moves, 0.1 comes closer to the minimum.
    assert scope["losses"].shape == (5,)
    assert 0.9 < scope["losses"][0] < 1.0
    assert scope["losses"].min() < 0.5

    monkeypatch.chdir(Path(__file__).parents[1] / "docs")
    exec(table, scope)
    assert set(scope["table"]["model"]) == {"plain20", "resnet34"}
