"""Confidence intervals of few seeds, against probabilities that are known and many studies."""

import math

import numpy as np
import pytest
import scipy.stats

from adamlab.analysis.intervals import bootstrap, jackknife, student
from adamlab.analysis.sensitivity import noise_normalised_range


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    """The mean of 30 normal numbers: the percentile bootstrap's 95% interval covers 0 in about 94% of studies."""
    rng = np.random.default_rng(0)
    inside = 0
    for study in range(200):
        low, high = bootstrap(np.mean, rng.normal(size=(1, 30)), resamples=300, seed=study)
        inside += low <= 0 <= high
    assert 176 <= inside <= 199  # 94% of 200 is 188, standard deviation 3.4
    assert np.isnan(bootstrap(np.mean, [[1.0], [2.0]])).all()


def test_bootstrap_interval_lies_between_the_quantiles_of_what_is_drawn():
    """Of two seeds, 0 and 1, two draws have the mean 0 in a quarter of all cases, 1/2 in a half, 1 in a quarter."""
    assert bootstrap(np.mean, [[0.0, 1.0]], level=0.4) == (0.5, 0.5)
    assert bootstrap(np.mean, [[0.0, 1.0]], level=0.6) == (0.0, 1.0)
    sample = np.random.default_rng(0).normal(size=(1, 30))
    assert bootstrap(np.mean, sample) == bootstrap(np.mean, sample, resamples=1000, level=0.95, seed=0)
    for other in ({"level": 0.99}, {"resamples": 50}, {"seed": 1}):
        assert bootstrap(np.mean, sample) != bootstrap(np.mean, sample, **other)
    assert np.isnan(bootstrap(lambda losses: math.inf, [[1.0, 2.0]])).all()


def test_jackknife_interval_of_a_range_in_units_of_noise_covers_the_truth():
    """Three seeds; five values whose range is 10 standard deviations. Of 200 intervals of 95 %, 190 do with a standard
    deviation of 3; of the bootstrap's some half do, since it draws seeds twice."""
    values, rng = np.array([0, 3, 5, 8, 10.0])[:, None], np.random.default_rng(0)
    studies = [values + rng.normal(size=(5, 3)) for _ in range(200)]
    inside = sum(low <= 10 <= high for low, high in (jackknife(noise_normalised_range, study) for study in studies))
    assert inside >= 183
    drawn = (bootstrap(noise_normalised_range, study, resamples=100) for study in studies)
    assert sum(low <= 10 <= high for low, high in drawn) < 140
    # Student's interval of a mean, where the index is the exponential of one.
    sample = np.array([[0.1, 0.5, 0.9, 0.3]])
    for level in ({}, {"level": 0.8}):
        low, high = jackknife(lambda losses: math.exp(losses.mean()), sample, **level)
        assert (math.log(low), math.log(high)) == pytest.approx(
            scipy.stats.t.interval(level.get("level", 0.95), 3, 0.45, scipy.stats.sem(sample[0]))
        )
    assert np.isnan(jackknife(lambda losses: 0.0, sample)).all()  # it has no logarithm
    for few in ([[1.0], [2.0]], [[1.0, 2.0], [3.0, 5.0]]):
        assert np.isnan(jackknife(noise_normalised_range, few)).all()


def test_students_interval_is_scipys_and_a_single_sample_has_no_ends():
    sample = np.random.default_rng(0).normal(3.0, 2.0, size=6)
    for level in (0.95, 0.9875):
        theirs = scipy.stats.ttest_1samp(sample, 0.0).confidence_interval(level)
        assert student(sample, level) == pytest.approx(theirs, rel=1e-12)
    assert student(sample) == student(sample, 0.95)
    assert student([1.0]) == (-math.inf, math.inf)
