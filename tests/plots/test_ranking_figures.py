"""The figure and the table that rank hyperparameters by what they cost."""

import numpy as np
import pytest

from adamlab import records
from adamlab.analysis.sensitivity import main_effect_shares
from adamlab.hyperparameters import OPTIMIZERS, Hyperparameters
from plots import numbers
from plots.indices import COLUMNS, index_rows, left_out
from plots.indices import curves as curves_of
from plots.panels import SYMBOLS
from plots.sensitivity import compose_all, draw
from tests.plots.artists import heading, panels
from tests.plots.curves import ADAM, write_grid, write_run


def by_column(row):
    return dict(zip(COLUMNS, row, strict=True))


def bars_of(container):
    """The segments of an ErrorbarContainer, each (2, 2) numbers."""
    return container.lines[2][0].get_segments()


def points_of(axes):
    """The points by optimizer, (hyperparameters, 2) numbers each."""
    return {str(line.get_label()): line.get_xydata() for line in axes.lines if line.get_label() in OPTIMIZERS}


def test_all_figures_of_a_study_warn_alike_of_another_data_set(tmp_path):
    """CIFAR-100 is the other paper's."""
    for name, value in (("alpha", 0.01), ("beta1", 0.5)):
        write_run(tmp_path, dataset="cifar100", **{name: value})
    for optimizer in ("adam", "adam_lawn"):
        write_run(tmp_path, dataset="cifar100", optimizer=optimizer)
        write_run(tmp_path, dataset="cifar100", optimizer=optimizer, alpha=0.1)
    figures = compose_all(records.read_runs(tmp_path))
    assert {"figure1-training-loss", "figure-ranking", "figure-optimizers-train_loss"} <= set(figures)
    assert all("cifar100, NOT CIFAR-10: " in heading(figure) for figure in figures.values())


def test_hyperparameters_are_ranked_by_expected_excess_loss(tmp_path):
    """Test losses are ten times those given, all clipped at a guess's, ln 10: what matters there is not known."""
    for seed in (0, 1):
        for name, values in ADAM.items():
            for place, value in enumerate(values):
                if value != getattr(Hyperparameters(), name):
                    # alpha: 1.4, 1.1, 1.1 and 1.4 around the default's 1, half of that for seed 1; the others a tenth.
                    height = (0.1 if name == "alpha" else 0.01) * (place - 2) ** 2 / (1 + seed)
                    write_run(tmp_path, (2.0, 1.0 + height), seed=seed, **{name: value})
        write_run(tmp_path, (2.0, 1.0), seed=seed)
    runs = records.read_runs(tmp_path)
    alpha = curves_of(runs, "plain20", "adam", "train_loss")["alpha"]
    assert alpha.default == 2
    np.testing.assert_allclose(alpha.losses[:, 0], [1.4, 1.1, 1.0, 1.1, 1.4])
    figure = compose_all(runs)["figure-ranking"]
    training, test = figure.axes
    assert training.get_yticklabels()[-1].get_text() == r"$\alpha$"  # on top
    (container,) = training.containers
    points = {training.get_yticklabels()[round(y)].get_text(): x for x, y in points_of(training)["adam"]}
    # Trapezoids of 0.4, 0.1, 0, 0.1, 0.4 over four equal steps: (0.25 + 0.05 + 0.05 + 0.25) / 4. Half of it for seed 1.
    assert points[r"$\alpha$"] == pytest.approx((0.15 + 0.075) / 2)
    # Two seeds, drawn twice: each alone in a quarter of all resamples, so the bar reaches from one to the other.
    bars = {training.get_yticklabels()[round(bar[0, 1])].get_text(): bar[:, 0] for bar in bars_of(container)}
    np.testing.assert_allclose(bars[r"$\alpha$"], [0.075, 0.15])
    assert points_of(test) == {}
    assert (
        "without the test loss by alpha, of which no value is better than a guess and the test loss by beta1"
        in heading(figure)
    )
    assert (
        "bars: 95 % bootstrap intervals over seeds, too narrow and too high for 2; chance alone puts a cost above 0"
        in heading(figure)
    )


def test_ranking_leaves_out_an_epsilon_of_0_which_has_no_place_in_decades(tmp_path):
    for value in (0.0, 1e-8, 1e-4):
        write_run(tmp_path, epsilon=value)
    write_run(tmp_path, alpha=1e-2)
    assert curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")["epsilon"].values == [1e-8, 1e-4]
    assert len(draw(tmp_path)) == 8  # the curves, with 0 among them, and the ranking


def test_ranking_takes_seeds_that_ended_everywhere_and_counts_divergence_as_a_guess(tmp_path):
    for value in (1e-4, 1e-3, 1e-2):
        write_run(tmp_path, alpha=value)
        write_run(tmp_path, seed=1, alpha=value, outcome="finished" if value < 1e-2 else None)
    write_run(tmp_path, (), "diverged", alpha=1e-1)
    curve = curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")["alpha"]
    assert curve.values == [1e-4, 1e-3, 1e-2, 1e-1]
    np.testing.assert_allclose(curve.losses[:, 0], [0.5, 0.5, 0.5, np.log(10)])
    assert curve.losses.shape == (4, 1)  # seed 1 did not end at 1e-2, and was not trained at 1e-1


def test_a_hyperparameter_whose_values_have_not_all_ended_is_left_out_and_said(tmp_path):
    """Without its worst value alpha would seem to matter less than it does."""
    write_grid(tmp_path, {"alpha": ADAM["alpha"][:-1], "beta1": ADAM["beta1"]})
    write_run(tmp_path, outcome=None, alpha=ADAM["alpha"][-1])
    runs = records.read_runs(tmp_path)
    assert list(curves_of(runs, "plain20", "adam", "train_loss")) == ["beta1"]
    (said,) = left_out(runs, "plain20", "adam", ["train_loss"])
    assert said == "plain20, Adam: without alpha, since no seed has ended at all its 5 values"
    assert said in numbers.indices(runs, "plain20", "adam", "train_loss").caption
    # A seed that lacks a value is left out, and the seeds that are not are counted.
    write_grid(tmp_path, {"alpha": ADAM["alpha"], "beta1": ADAM["beta1"]}, seed=1)
    runs = records.read_runs(tmp_path)
    rows = [by_column(row) for row in index_rows(curves_of(runs, "plain20", "adam", "train_loss"))]
    shown = {row[""]: (row["values"], row["seeds"]) for row in rows}
    assert shown == {"alpha": ("1e-05 to 0.1 (5)", "1"), "beta1": ("0.1 to 0.999 (5)", "2")}
    assert left_out(runs, "plain20", "adam", ["train_loss"]) == [
        "plain20, Adam: without alpha's seed 0, not ended at all its 5 values"
    ]
    write_grid(tmp_path, {"beta1": ADAM["beta1"]}, seed=2)
    (said,) = left_out(records.read_runs(tmp_path), "plain20", "adam", ["train_loss"])
    assert said == "plain20, Adam: without alpha's seeds 0, 2, not ended at all its 5 values"


def test_values_without_the_default_are_not_ranked_and_that_is_said(tmp_path):
    write_grid(tmp_path, {"alpha": (1e-5, 1e-4, 1e-2)})
    runs = records.read_runs(tmp_path)
    assert curves_of(runs, "plain20", "adam", "train_loss") == {}
    assert left_out(runs, "plain20", "adam", ["train_loss"]) == [
        "plain20, Adam: without alpha, whose default 0.001 was not trained"
    ]
    assert numbers.indices(runs, "plain20", "adam", "train_loss").rows == []


def test_shares_are_of_the_seeds_that_all_have(tmp_path):
    """beta1, of chance alone, has one seed, which cannot be corrected for chance as alpha's three would be."""
    rng = np.random.default_rng(0)
    for seed in (0, 1, 2):
        for name in ("alpha", "beta1"):
            for place, value in enumerate(ADAM[name]):
                if name == "alpha" or seed == 0:
                    loss = 1 + 0.01 * place * (name == "alpha") + 0.01 * rng.normal()
                    write_run(tmp_path, (loss,), seed=seed, **{name: value})
    found = curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")
    assert {name: curve.seeds for name, curve in found.items()} == {"alpha": [0, 1, 2], "beta1": [0]}
    expected = main_effect_shares({name: curve.losses[:, :1] for name, curve in found.items()})
    shown = {row[0]: by_column(row)["share"] for row in index_rows(found)}
    assert shown == {name: f"{share:.0%}" for name, share in expected.items()}
    assert by_column(index_rows({"alpha": found["alpha"]})[0])["share"] == "-"  # of one there is no share


def test_a_shares_interval_is_from_one_seed_to_the_other(tmp_path):
    """Of two seeds a bootstrap draws each alone in a quarter of its samples: the interval ends there."""
    for seed in (0, 1):
        for name, slope in (("alpha", 0.1), ("beta1", 0.05 * (1 + seed))):
            for place, value in enumerate(ADAM[name]):
                loss = 1 + slope * place * (value != getattr(Hyperparameters(), name))
                write_run(tmp_path, (loss,), seed=seed, **{name: value})
    found = curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss")
    shown = {row[0]: by_column(row)["share"] for row in index_rows(found)}
    one, other = (main_effect_shares({n: c.losses[:, [s, s]] for n, c in found.items()}) for s in (0, 1))
    for name, text in shown.items():
        low, high = sorted((one[name], other[name]))
        assert text.endswith(f" [{low:.0%}, {high:.0%}]")
        assert high > low + 0.1


def test_a_basin_that_goes_to_an_end_of_the_grid_is_said_to_be_at_least_that(tmp_path):
    """Losses of 1, but for alpha's two ends, of 2."""
    for name, ends in (("alpha", 2.0), ("beta1", 1.0)):
        for place, value in enumerate(ADAM[name]):
            write_run(tmp_path, (ends if place in (0, 4) else 1.0,), **{name: value})
    rows = index_rows(curves_of(records.read_runs(tmp_path), "plain20", "adam", "train_loss"))
    basins = {row[0]: by_column(row)["basin, decades"] for row in rows}
    # A tenth of a decade on each side of 1e-4 to 1e-2; from 1 - 0.1 to 1 - 0.999.
    assert basins == {"alpha": "2.2", "beta1": f"≥ {np.log10(0.9 / 0.001):.3g}"}


def test_a_point_of_one_seed_has_no_bar_where_others_have(tmp_path):
    for seed in (0, 1):
        for name in ("alpha", "beta1"):
            for place, value in enumerate(ADAM[name]):
                if name == "alpha" or seed == 0:
                    write_run(tmp_path, (1 + 0.1 * place * (1 + seed),), seed=seed, **{name: value})
    figure = compose_all(records.read_runs(tmp_path))["figure-ranking"]
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    (container,) = axes.containers
    assert sorted(names[round(y)] for _, y in points_of(axes)["adam"]) == [r"$\alpha$", r"$\beta_1$"]
    barred = [bar for bar in bars_of(container) if len(bar) and np.isfinite(bar).all()]
    assert [names[round(y)] for bar in barred for y in set(bar[:, 1])] == [r"$\alpha$"]
    assert "without a bar: one seed, no interval" in heading(figure)
    assert "too narrow and too high for 2" in heading(figure)


def test_a_bar_is_the_tables_interval_even_where_its_point_lies_outside(tmp_path):
    """Of chance alone each seed has another best value: the mean of all is flatter than that of a few, drawn twice."""
    rng = np.random.default_rng(38)
    for seed in range(10):
        for name in ("alpha", "beta1"):
            for value in ADAM[name]:
                write_run(tmp_path, (1 + 0.05 * rng.random(),), seed=seed, **{name: value})
    runs = records.read_runs(tmp_path)
    found = curves_of(runs, "plain20", "adam", "train_loss")
    axes = compose_all(runs)["figure-ranking"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = {names[round(bar[0, 1])]: bar[:, 0] for bar in bars_of(axes.containers[0])}
    for name, symbol in (("alpha", r"$\alpha$"), ("beta1", r"$\beta_1$")):
        np.testing.assert_allclose(bars[symbol], found[name].excess_interval)
    assert any(curve.excess_interval[0] > curve.excess for curve in found.values())


def test_a_panel_is_of_its_network_and_a_point_of_its_optimizer(tmp_path):
    """Losses of 1, but at the highest beta1, where each has its own: alpha, although first in grids, is free."""
    heights = {
        ("plain20", "adam"): 0.1,
        ("plain20", "adamw"): 0.2,
        ("resnet34", "adam"): 0.3,
        ("resnet34", "adamw"): 0.4,
    }
    for (model, optimizer), height in heights.items():
        for name in ("alpha", "beta1"):
            for value in ADAM[name]:
                loss = 1 + height * (value == 0.999)
                write_run(tmp_path, (loss,), model=model, optimizer=optimizer, **{name: value})
    runs = records.read_runs(tmp_path)
    found = panels(compose_all(runs)["figure-ranking"])
    # A triangle over the last of the decades from 1 - 0.1 to 1 - 0.999.
    costs = {cell: height / 2 / np.log10(0.9 / 0.001) for cell, height in heights.items()}
    for (model, optimizer), cost in costs.items():
        axes = found[f"{model}, training loss"]
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == [SYMBOLS["alpha"], SYMBOLS["beta1"]]  # from below
        points = {names[round(y)]: x for x, y in points_of(axes)[optimizer]}
        assert points == pytest.approx({SYMBOLS["alpha"]: 0, SYMBOLS["beta1"]: cost})
        rows = index_rows(curves_of(runs, model, optimizer, "train_loss"))
        assert [row[0] for row in rows] == ["beta1", "alpha"]
