"""The growth of norms that L7 compares, beside a reckoning by hand."""

import math
from dataclasses import replace

import pytest

from adamlab.claims import lawn
from adamlab.claims.evidence import split
from tests.claims.worlds import gupta

NAMES = ("weight_norm", "logit_norm")


def traced(tmp_path, free, at):
    """By optimizer: a run whose norms jump in epoch 4, and then grow; traced at those epochs alone, by optimizer."""
    only, runs = [("adam", False), ("adam_lawn", False, free)], []
    for run in gupta(tmp_path, {only[1]: 93.9}, seeds=(0,), only=only):
        slope, records = (3.0 if run.config.optimizer == "adam" else 2.0), []
        for record in run.epochs:
            epoch = record["epoch"]
            kept = {key: value for key, value in record.items() if key not in NAMES}
            if epoch in at[run.config.optimizer]:
                kept |= dict.fromkeys(NAMES, slope * epoch + 100.0 * (epoch == 4)) | {"gradient_norm": 1.0}
            records.append(kept)
        runs.append(replace(run, epochs=records))
    return {run.config.optimizer: run for run in runs}


def growths(runs):
    return lawn.l7(split("traced", runs.values())[0])[:2]


def by_hand(runs, first):
    """The logarithm of the factor of factors, from that epoch to the 20th."""
    ends = {name: (run.epochs[19]["weight_norm"], run.epochs[first - 1]["weight_norm"]) for name, run in runs.items()}
    return math.log((ends["adam"][0] / ends["adam"][1]) / (ends["adam_lawn"][0] / ends["adam_lawn"][1]))


@pytest.mark.parametrize(("free", "first"), [(0.0, 4), (4.0, 4), (5.0, 8), (8.0, 8)])
def test_norms_grow_from_the_first_trace_of_the_constrained_phase(free, first, tmp_path):
    every = range(4, 21, 4)
    runs = traced(tmp_path, free, {"adam": every, "adam_lawn": every})
    for number in growths(runs):
        assert number.samples == (pytest.approx(by_hand(runs, first), abs=1e-12),)


@pytest.mark.parametrize(("adam", "constrained"), [((8, 12, 20), (4, 8, 20)), ((4, 8, 20), (8, 12, 20))])
def test_of_runs_that_were_traced_at_other_epochs_those_of_both_count(adam, constrained, tmp_path):
    runs = traced(tmp_path, 2.0, {"adam": adam, "adam_lawn": constrained})
    for number in growths(runs):
        assert number.samples == (pytest.approx(by_hand(runs, 8), abs=1e-12),)


@pytest.mark.parametrize("constrained", [(5, 10, 15, 20), (20,), ()])
def test_where_both_were_traced_at_no_two_epochs_there_is_no_growth(constrained, tmp_path):
    """Without any, as in a record that lacks the norms."""
    runs = traced(tmp_path, 2.0, {"adam": (4, 8, 12, 16, 20), "adam_lawn": constrained})
    last = runs["adam_lawn"].epochs[-1] | {"gradient_norm": 1.0}
    runs["adam_lawn"] = replace(runs["adam_lawn"], epochs=[*runs["adam_lawn"].epochs[:-1], last])
    assert [(number.samples, number.why) for number in growths(runs)] == [((), "no number in any of 1 seeds")] * 2
