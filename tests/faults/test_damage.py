"""Damaged files: a run goes on from what is intact, says which file is not, and ends with the same numbers."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adamlab import records
from tests.faults import grid, study


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, one_step_chunks):
    """A finished run, and one that was stopped after step 2 of its third epoch, with two checkpoints."""
    out = tmp_path_factory.mktemp("stopped")
    grid.train_until_terminated(out, run=2, epoch=3, step=2)
    assert records.read_run(grid.folder(out, 1)).ending == "finished"
    assert len(list(grid.folder(out, 2).glob("checkpoint/*"))) == 2
    return out


def files(out: Path) -> list[Path]:
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def older_checkpoint(out: Path) -> Path:
    folders = [path for path in (grid.folder(out, 2) / "checkpoint").iterdir() if path.is_dir()]
    return min(folders, key=lambda path: int(path.name)).relative_to(out)


def damage(path: Path, draw) -> str:
    """Deletes, cuts or changes a file, and says which."""
    content = path.read_bytes()
    kind = draw(st.sampled_from(["delete", "cut", "change"]))
    if kind == "delete":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    else:
        changed = bytearray(content)
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3, unique=True)):
            changed[place] ^= draw(st.integers(1, 255))
        path.write_bytes(changed)
    return kind


def says_the_same(before: bytes, path: Path) -> bool:
    """Whether a reader of JSON lines meets the same content, or the beginning of it that a kill would have left."""
    if not path.exists():
        return False
    try:
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]
        return lines == [json.loads(line) for line in before.split(b"\n") if line.strip()][: len(lines)]
    except ValueError:
        return False


def check(stopped: Path, whole: dict, scratch: Path, draw) -> None:
    """Damages one or two files of a copy, trains it to its end, and looks at what was said and recorded."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(stopped, scratch)
    to_name = []
    for name in draw(st.lists(st.sampled_from(files(stopped)), min_size=1, max_size=2, unique=True)):
        path, before = scratch / name, (stopped / name).read_bytes()
        damage(path, draw)
        silent = name.name == "config.json" and path.exists() and same_json(before, path)
        silent |= name.name == "metrics.jsonl" and says_the_same(before, path)
        to_name += [] if silent else [path]
    names = [str(path) for path in to_name]
    # Without configuration and records a run's folder is a new one's: old checkpoints in it are found and named.
    names += [str(path.parent / "checkpoint") for path in to_name if path.name == "config.json" and not path.exists()]
    said = grid.train(scratch, minutes=10)
    assert study.recorded(scratch) == whole
    # Of two damaged checkpoints and files of one run the first one met is named; the others go with it.
    assert not to_name or any(name in said for name in names), said
    if len(to_name) == 1:
        assert names[0] in said
    assert "Traceback" not in said


def same_json(before: bytes, path: Path) -> bool:
    try:
        return json.loads(path.read_bytes()) == json.loads(before)
    except ValueError:
        return False


ANY = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


@settings(ANY, max_examples=8)
@given(data=st.data())
def test_any_file_may_be_damaged(stopped, whole, tmp_path_factory, data):
    check(stopped, whole, tmp_path_factory.getbasetemp() / "damaged", data.draw)


@pytest.mark.slow
@settings(ANY, max_examples=300)
@given(data=st.data())
def test_any_file_may_be_damaged_many_times(stopped, whole, tmp_path_factory, data):
    check(stopped, whole, tmp_path_factory.getbasetemp() / "damaged-often", data.draw)


def test_an_older_checkpoint_that_orbax_cannot_read_stops_nothing(stopped, whole, tmp_path):
    """Orbax reads what all of them say of themselves before it restores one."""
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    path = out / older_checkpoint(stopped) / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace("performance_m", "qerformance_m").replace("item_h", "htem_h"))
    said = grid.train(out, minutes=10)
    assert f"{path} is damaged (its SHA-256 is another): this checkpoint is not used" in said
    assert "continued after step 2 of epoch 3" in said
    assert study.recorded(out) == whole


def test_nothing_damaged_says_nothing_and_continues_where_it_was_stopped(stopped, whole, tmp_path):
    shutil.copytree(stopped, tmp_path / "out")
    said = grid.train(tmp_path / "out")
    assert "continued after step 2 of epoch 3" in said
    assert "warning" not in said
    assert study.recorded(tmp_path / "out") == whole
    assert study.leftovers(tmp_path / "out") == []


def test_what_is_damaged_is_kept_aside_for_a_person_and_read_by_no_program(stopped, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(stopped, out)
    path = grid.folder(out, 1) / "metrics.jsonl"
    damaged = path.read_text().replace('"epoch": 2', '"epoch": 7')
    path.write_text(damaged)
    with pytest.raises(records.RecordsError, match=r"metrics.jsonl is damaged \(line 2: its checksum is another\)"):
        records.load(out)
    said = grid.train(out, minutes=10)
    assert f"{path} is damaged (line 2: its checksum is another): 1 lines of it are used" in said
    assert path.with_name("metrics.jsonl.damaged").read_text() == damaged
    assert study.recorded(out) == whole
    assert len(records.load(out)) == 2 * 3
