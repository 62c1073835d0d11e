"""Sensitivity indices on curves whose answer is known, or against many random draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adamlab.analysis.intervals import bootstrap
from adamlab.analysis.sensitivity import (
    basin,
    basin_width,
    clip,
    coordinate,
    default_regret,
    expected_best,
    expected_excess_loss,
    main_effect_shares,
    noise_normalised_range,
    tuning_dependence,
)

curves = arrays(np.float64, (5, 3), elements=st.floats(0.1, 3.0))
POSITIONS = [-5.0, -4.0, -3.0, -2.0, -1.0]


def test_expected_excess_loss_is_the_mean_of_many_draws():
    means = np.array([2.0, 0.5, 1.0, 1.0, 2.3])
    drawn = np.interp(np.random.default_rng(0).uniform(-5, -1, 200_000), POSITIONS, means) - 0.5
    # Standard error: below 0.6 / sqrt(200,000) = 0.0013.
    assert expected_excess_loss(POSITIONS, means[:, None]) == pytest.approx(drawn.mean(), abs=0.006)


def test_expected_excess_loss_weighs_values_by_the_distance_to_their_neighbours():
    # Flat at 1 over 9 of 10 decades, 0 at the end: 9 + 1/2 of 10.
    assert expected_excess_loss([0, 9, 10], [[1.0], [1.0], [0.0]]) == pytest.approx(0.95)


@given(curves, st.floats(0.1, 10), st.floats(-5, 5))
def test_indices_scale_with_the_loss_and_do_not_see_shifts(losses, factor, shift):
    moved = factor * losses + shift
    for index in (lambda x: expected_excess_loss(POSITIONS, x), lambda x: default_regret(x, 2)):
        assert index(moved) == pytest.approx(factor * index(losses), abs=1e-9)
        assert index(losses) >= 0
    assert expected_best(moved, 3) == pytest.approx(factor * expected_best(losses, 3) + shift, abs=1e-9)


@given(curves)
def test_a_run_that_diverged_counts_as_a_guess(losses):
    guess = 2.3
    for useless in (math.nan, math.inf, 1e8):
        broken, guessed = losses.copy(), losses.copy()
        broken[0, 0], guessed[0, 0] = useless, guess
        np.testing.assert_array_equal(clip(broken, guess), clip(guessed, guess))
    assert clip(losses, guess).max() <= guess


def test_range_of_pure_noise_is_that_of_normal_numbers():
    """The expected range of five standard normal numbers is 2.326 (Tippett, 1925); means of n have it over sqrt(n)."""
    noise = np.random.default_rng(0).normal(size=(2000, 5, 4))
    ranges = [noise_normalised_range(curve) for curve in noise]
    assert np.mean(ranges) == pytest.approx(2.326 / 2, rel=0.06)
    assert math.isnan(noise_normalised_range([[1.0], [2.0]]))
    assert noise_normalised_range([[1.0, 1.0], [2.0, 2.0]]) == math.inf
    assert noise_normalised_range([[1.0, 1.0], [1.0, 1.0]]) == 0
    assert noise_normalised_range([[0.1] * 3, [0.2] * 3]) == math.inf  # whose means are rounded


def test_basin_is_cut_at_the_first_crossing_and_at_the_grids_end():
    # A second basin, beyond a ridge, does not count; 1.1 is crossed a tenth of the way to 2.
    assert basin_width([0, 1, 2, 3], [[1.0], [2.0], [1.0], [1.0]]) == pytest.approx(0.1)
    assert basin_width([0, 1, 2, 3], [[2.0], [1.0], [1.05], [1.0]]) == pytest.approx(2.1)
    assert basin_width([0, 1, 2], [[1.0], [1.0], [1.0]]) == 2
    # The tolerance is relative: 5 is the level, a quarter of each side.
    assert basin_width([0, 1, 2], [[8.0], [4.0], [8.0]], tolerance=0.25) == 0.5
    # What touches the level is as good.
    assert basin([0, 1, 2], [[1.0], [2.0], [1.0]], tolerance=1.0) == (0.0, 2.0)
    assert basin([0, 1], [[1.0], [2.0]]) == pytest.approx((0.0, 0.1))
    # A steeper valley is narrower.
    widths = [basin_width([0, 1, 2], [[1 + s], [1.0], [1 + s]]) for s in (0.2, 0.5, 1.0)]
    assert widths == sorted(widths, reverse=True)


def test_shares_are_unbiased_where_chance_is_all_there_is_in_one_parameter():
    rng = np.random.default_rng(0)
    effect = np.linspace(0, 4, 5)[:, None]
    shares = [
        main_effect_shares({"alpha": effect + rng.normal(size=(5, 3)), "epsilon": rng.normal(size=(5, 3))})
        for _ in range(300)
    ]
    assert np.mean([share["epsilon"] for share in shares]) < 0.06  # not removed, noise would make 0.12
    assert all(sum(share.values()) == pytest.approx(1) for share in shares)
    assert main_effect_shares({"alpha": [[1.0], [1.0]]}) == {"alpha": 0.0}
    less_than_chance = [[1.0, -1.0], [-1.0, 1.0]]  # means that are equal
    assert main_effect_shares({"alpha": [[0.0, 0.0], [4.0, 4.0]], "epsilon": less_than_chance})["epsilon"] == 0


def test_shares_are_what_the_equation_says():
    """By hand. Means 1, 4, 1 have a variance of 2, of which chance makes 2/3 of s^2 / 3 = 11/18; of beta1, 2.25."""
    curves = {"alpha": [[0.0, 1.0, 2.0], [3.0, 3.0, 6.0], [1.0, 2.0, 0.0]], "beta1": [[0.0] * 3, [3.0] * 3]}
    assert main_effect_shares(curves)["alpha"] == pytest.approx((2 - 11 / 27) / (2 - 11 / 27 + 2.25))


@given(arrays(np.float64, (4, 6), elements=st.floats(0, 1)))
def test_tuning_dependence_is_never_negative_and_0_where_one_setting_is_best(gamma):
    assert tuning_dependence(gamma) >= -1e-12
    gamma[:, 2] = 1.0
    assert tuning_dependence(gamma) == pytest.approx(0)


@given(curves)
def test_expected_best_falls_from_the_mean_to_the_minimum(losses):
    values = [expected_best(losses, k) for k in (1, 2, 5, 20)]
    assert values == sorted(values, reverse=True) or values == pytest.approx([values[0]] * 4)
    assert values[0] == pytest.approx(losses.mean())
    assert expected_best(losses, 10_000) == pytest.approx(losses.min(), abs=1e-6)


def test_expected_best_is_the_mean_of_many_searches():
    losses = np.random.default_rng(1).uniform(size=(5, 3))
    searches = np.random.default_rng(2).choice(losses.ravel(), size=(100_000, 4)).min(axis=1)
    assert expected_best(losses, 4) == pytest.approx(searches.mean(), abs=0.003)
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        expected_best(losses, 0)


def test_shares_of_unlike_seeds_are_refused():
    """One is corrected for chance, the other cannot be: it would have a share in pure noise."""
    with pytest.raises(ValueError, match=r"curves must have the same seeds, got \{'alpha': 2, 'beta1': 1\} of them"):
        main_effect_shares({"alpha": [[1.0, 2.0], [3.0, 4.0]], "beta1": [[1.0], [2.0]]})


def test_what_a_seed_does_to_all_values_alike_is_no_noise_of_a_comparison():
    """Losses f_i + seed_j: the curve's shape is known exactly, and f = 0 changes nothing."""
    seeds, slope = np.array([1.0, 2.5, 4.0]), np.linspace(0, 1, 5)[:, None]
    curve, flat = slope + seeds, np.zeros((5, 1)) + seeds
    regret = lambda losses: default_regret(losses, default=4)  # noqa: E731
    assert bootstrap(regret, curve) == pytest.approx((1.0, 1.0))
    assert bootstrap(regret, flat) == pytest.approx((0.0, 0.0))
    assert bootstrap(np.mean, curve)[0] < curve.mean() < bootstrap(np.mean, curve)[1]
    assert main_effect_shares({"alpha": curve, "epsilon": flat}) == pytest.approx({"alpha": 1, "epsilon": 0})


def test_positions_are_decades():
    assert [round(coordinate("alpha", 10.0**k), 9) for k in (-5, -1, 0)] == [-5, -1, 0]
    assert [round(coordinate("beta1", b), 9) for b in (0.9, 0.99)] == [1, 2]
    assert coordinate("free_epochs", 0.0) == coordinate("warmup_epochs", 0.0) == 0
    with pytest.raises(ValueError, match=r"at least two, got \[0\.0\]"):
        expected_excess_loss([0.0], [[1.0]])
    for positions in ([0.0, 0.0], [1.0, 0.0], [0.0], [0.0, 1.0, 2.0]):
        with pytest.raises(ValueError, match="positions must be ascending"):
            expected_excess_loss(positions, [[1.0], [2.0]])
