"""Nothing that is read is run, no name is taken for markup, and `--deterministic` says so to XLA in time."""

import ast
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from adamlab import command
from adamlab.records import RecordsError
from tests.faults import grid, study

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "popen", "getoutput", "getstatusoutput"}
SOURCES = [path for room in ("adamlab", "experiments", "plots") for path in sorted((study.ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(study.ROOT).as_posix())
def test_no_pickle_no_eval_no_shell(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", "") or "")}
            assert not modules & FORBIDDEN_MODULES, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            of = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
            assert of == "re" or name not in FORBIDDEN_CALLS, f"line {node.lineno}"  # re.compile is none of them
            assert (of, name) != ("os", "system"), f"line {node.lineno}"
            options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            assert not options.get("shell"), f"line {node.lineno}"
            assert not options.get("allow_pickle"), f"line {node.lineno}"


def test_a_label_is_text_in_a_figure_not_markup(tmp_path):
    from matplotlib import rc_context

    from plots import style

    with rc_context(style.RC):
        figure = style.new_figure([("</title><script>alert(1)</script> & ü", style.TITLE)], 1)
        paths = style.save(figure, tmp_path / "figure")
    (svg,) = [path for path in paths if path.suffix == ".svg"]
    tags = {element.tag.split("}")[-1] for element in ElementTree.parse(svg).iter()}  # which fails for broken markup
    assert "script" not in tags
    assert "<script" not in svg.read_text()


def test_a_name_like_the_terminals_markup_is_shown_as_it_is():
    display = grid.Watched(lambda run, epoch, step: None)
    display.warn("[red]/results[/]/[/bold] is damaged")
    assert display.text.getvalue() == "warning: [red]/results[/]/[/bold] is damaged\n"


@pytest.mark.parametrize("place", ["--out={}", "--dataset={}", "{}"])
def test_control_characters_of_a_name_do_not_reach_the_terminal(place):
    """Nor do bytes that are no UTF-8 end in a traceback."""
    others = ["--report"] if "out" in place else ["--seeds=1", "--data-dir=/nowhere"]
    arguments = [*others, place.format("a\n\x1b[31m\udcff")]
    command_line = [sys.executable, "-m", "experiments.sensitivity", *arguments]
    result = subprocess.run(command_line, cwd=study.ROOT, capture_output=True)
    assert result.returncode == 2
    assert result.stdout == b""
    assert result.stderr.count(b"\n") == 1
    assert rb"a\n\x1b[31m\udcff" in result.stderr
    assert b"\x1b" not in result.stderr


@pytest.mark.parametrize("name", ["[0]", "a*", "what?"])
def test_a_folder_that_orbax_would_take_for_a_pattern_is_refused(tmp_path, name):
    """It saves there, and does not find what it has saved."""
    with pytest.raises(RecordsError, match="must not hold any of"):
        grid.train(tmp_path / name)


def test_deterministic_reaches_xla_before_jax_starts(monkeypatch):
    """On a CPU it changes nothing; that XLA knows the flags shows in a process, which an unknown one would end."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    for _ in range(2):  # as by the tasks of a worker that is used again
        command.make_deterministic()
    flags = os.environ["XLA_FLAGS"]
    assert flags.split() == [
        "--xla_cpu_enable_fast_math=false",
        "--xla_gpu_deterministic_ops=true",
        "--xla_gpu_autotune_level=0",
    ]
    assert subprocess.run([sys.executable, "-c", "import jax; jax.devices()"]).returncode == 0


@pytest.mark.parametrize("study_name", ["sensitivity", "large_batch"])
def test_both_studies_have_deterministic(study_name, monkeypatch):
    """The flag is looked at before anything imports JAX, and before a later refusal."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(sys, "argv", ["study", "--deterministic", "--seeds=0"])
    module = __import__(f"experiments.{study_name}", fromlist=["main"])
    with pytest.raises(ValueError, match="--seeds must be from 1 to 1000"):
        module.main()
    assert "--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"]
