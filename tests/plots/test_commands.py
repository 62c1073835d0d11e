"""`python -m plots.sensitivity` and `python -m plots.large_batch` as real processes."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from adamlab.command import run_main
from plots.sensitivity import KINDS
from tests.plots import cells, curves


def command(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"plots.{module}", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def write_enough(module: str, out: Path) -> list[str]:
    """The least that there is a figure of, and the stems of the figures."""
    if module == "sensitivity":
        curves.write_run(out, alpha=0.1)
        return [kind.name for kind in KINDS if kind.study == "magnitude"]
    for batch_size in (50, 400):
        cells.write_run(out, "adam", batch_size)
    return [cells.FIGURE1]


def write_too_little(module: str, out: Path) -> None:
    """The default setting alone, one cell alone."""
    if module == "sensitivity":
        curves.write_run(out)
    else:
        cells.write_run(out, "adam", 50)


MODULES = pytest.mark.parametrize(
    ("module", "study"), [("sensitivity", "cifar10-laptop"), ("large_batch", "cifar10-lawn-laptop")]
)


@MODULES
def test_a_command_prints_the_files_it_wrote(tmp_path, module, study):
    stems = write_enough(module, tmp_path)
    answer = command(module, tmp_path, "--out", tmp_path / "figures")
    assert (answer.returncode, answer.stderr) == (0, "")
    folder = tmp_path / "figures" / study
    assert answer.stdout.split() == [str(folder / f"{stem}.{suffix}") for stem in stems for suffix in ("png", "svg")]
    assert all(Path(path).stat().st_size > 1_000 for path in answer.stdout.split())


@MODULES
def test_a_study_on_another_disk_is_drawn_through_its_link(tmp_path, monkeypatch, capsys, module, study):
    stems = write_enough(module, tmp_path / "disk")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / study).symlink_to(tmp_path / "disk" / study)
    for results in (tmp_path / "results", tmp_path / "results" / study):
        monkeypatch.setattr(sys, "argv", [module, str(results)])
        import_module(f"plots.{module}").main()
        folder = tmp_path / "results" / study / "figures"
        files = [str(folder / f"{stem}.{suffix}") for stem in stems for suffix in ("png", "svg")]
        assert capsys.readouterr().out.split() == files


@MODULES
def test_errors_are_one_line_and_status_2(tmp_path, monkeypatch, capsys, module, study):
    write_too_little(module, tmp_path / "little")
    write_enough(module, tmp_path / "good")
    (tmp_path / "file").touch()
    for arguments, message in [
        ((), "the following arguments are required: RESULTS"),
        ((tmp_path / "missing",), "no runs below"),
        ((tmp_path / "little",), "nothing to draw"),
        ((tmp_path / "good", "--out", tmp_path / "file"), "cannot write results to"),
    ]:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_main(import_module(f"plots.{module}").main, f"plots.{module}")
        answer = capsys.readouterr()
        assert (stop.value.code, answer.out) == (2, "")
        assert answer.err.startswith(f"error: {message}")
        assert answer.err.count("\n") == 1


@MODULES
def test_a_full_disk_is_one_line_and_status_1_and_leaves_no_half_figure(tmp_path, module, study):
    write_enough(module, tmp_path / "good")
    program = [sys.executable, "-m", f"plots.{module}", str(tmp_path / "good"), "--out", str(tmp_path / "figures")]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *program]  # no file of more than 8 KiB
    answer = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1)
    assert answer.stderr.startswith("error: cannot write figures to ")
    assert not [path for path in (tmp_path / "figures").rglob("*") if path.is_file()]


@MODULES
def test_help_waits_for_nothing_heavy_and_plots_do_not_know_jax(module, study):
    answer = command(module, "--help")
    assert answer.returncode == 0
    assert "RESULTS" in answer.stdout.upper()
    code = (
        f"import sys, plots.{module}; assert 'matplotlib' not in sys.modules\n"
        "import plots.comparison, plots.final, plots.flattening, plots.numbers, plots.report, plots.style\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reader_that_has_seen_enough_gets_no_traceback(tmp_path):
    """As `head` in a pipe: the output is closed while figures are drawn, before their names are printed."""
    write_enough("sensitivity", tmp_path)
    arguments = [sys.executable, "-m", "plots.sensitivity", str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")
