"""Each number of a rule contradicts by itself, and its margin lies where the rule says."""

import math
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import pytest

from adamlab.claims import CLAIMS, judge
from adamlab.claims.sensitivity import NETS
from adamlab.hyperparameters import MAGNITUDE, PERTURBATION, Hyperparameters
from tests.claims.worlds import NAMES, gupta, madan, mixed, verdicts, world_of

ALPHAS = [value for value in MAGNITUDE["alpha"] if value != 1e-3]
BETA1S = [value for value in MAGNITUDE["beta1"] if value != 0.9]
SIZES = (False, True)
ADAM = {size: [("adam", size), ("adam_lawn", size)] for size in SIZES}


def setting(model, name, value):
    """As the worlds have it: the default is that of no hyperparameter."""
    return (model, None, None) if value == getattr(Hyperparameters(), name) else (model, name, value)


# What to change of the paper's world so that one number of the claim fails, and no other of it.
PARTS = {
    "S1": [{(model, name, PERTURBATION[name][0]): (1.6, 1.0, 75.0)} for model in NETS for name in PERTURBATION],
    "S2": [
        {(model, name, values[1]): (9.0, 1.0, 75.0), (model, name, values[-1]): (0.1, 1.0, 75.0)}
        for model in NETS
        for name, values in MAGNITUDE.items()
        if name in ("beta1", "beta2", "epsilon")
    ],
    "S3": [{("plain20", "alpha", value): (0.5, 1.0, 72.0)} for value in ALPHAS],
    "S4": [{("resnet34", "alpha", 1e-4): (factor, 1.1, 65.0)} for factor in (0.5, 2.0)],
    "S5": [{setting("resnet34", "alpha", value): (0.5, 1.0, 62.0)} for value in MAGNITUDE["alpha"] if value != 1e-5],
    "S6": [
        {(model, "beta1", value): (factor, 0.9, 74.0)}
        for model in NETS
        for value, factor in ((0.1, 2.0), (0.5, 2.0), (0.999, 1.0))
    ],
    "S7": [{(model, "beta2", 0.1): (2.0, 1.0, 75.0)} for model in NETS]
    + [{(model, "beta2", value): (factor, 1.0, 75.0) for value, factor in ((0.1, 0.7), (0.9, 0.8))} for model in NETS],
    "S8": [{(model, "epsilon", value): (3.0, 1.0, 75.0)} for model in NETS for value in (1e-6, 1.0)],
    "S9": [
        {(model, None, None): (1.0, 1.0, accuracy)} for model in NETS for accuracy in (60.0, 90.0, "climbing", "level")
    ],
    "S10": [
        {("resnet34", "alpha", 1e-4): (1.05, 1.1, 50.0)},
        {("resnet34", None, None): (1.0, 1.0, 62.0)},
        {("resnet34", "alpha", 1e-4): (1.05, 0.8, 65.0)},
        {("resnet34", "alpha", 1e-4): (1.05, 2.0, 65.0)},
    ],
    "S11": [
        {setting("resnet34", "alpha", value): (1.5, *changed)}
        for value in MAGNITUDE["alpha"]
        if value != 1e-5
        for changed in ((2.0, 75.0), (1.0, 40.0))
    ],
    "S12": [{("plain20", "alpha", value): (4.0, 1.0, 75.0)} for value in (1e-5, 1e-1)],
    "S13": [
        {(model, "beta1", value): (1.1, *changed)}
        for model in NETS
        for value in BETA1S
        for changed in ((1.5, 74.0), (0.9, 30.0))
    ],
    "S14": [
        {setting(model, name, value): (1.0, 1.0, shape) for value in values}
        for shape in ("falling", "rising")
        for model, (name, values) in product(NETS, list(MAGNITUDE.items())[:4])
    ],
    "L1": [{("adam", size): 95.0} for size in SIZES],
    "L2": [{("adam_lawn", True): 92.0}, {("sgd", True): 93.9}, {("adam", True): 93.4}],
    "L3": [{("sgd_lawn", False): 92.0}, {("sgd_lawn", False): 96.0}, {("sgd_lawn", True): 92.0}],
    "L4": [
        {("sgd", False): 92.5},
        {("sgd", True): 91.5},
        {("adam_lawn", False): 93.3, ("adam_lawn", False, 10.0): 93.3},
        {("adam_lawn", True): 92.5},
        {("sgd", False): 96.0, ("adam", False): 91.0},
        {("sgd", True): 96.0, ("adam", True): 91.0},
    ],
    "L5": [
        {("adamp", False): 91.0},
        {("adamp", False): 96.0, ("adamp", True): 96.0, ("adam_lawn", True): 95.5},
        {("adamp", True): 96.0},
        {("adamp", False): 94.7, ("adamp", True): 93.0},
        {("adam_lawn", True): 92.9},
    ],
    "L6": [{("adam_lawn", False, 10.0): 96.0}],
    "L7": [
        {"weight_norm": (40, 30)},
        {"logit_norm": (4, 5)},
        {"gradient_norm": (1, 3.0)},
        {"hessian_eigenvalue": (30, 60)},
        {"others' loss": 0.01},
    ],
    "L8": [{("adam", True): 95.0}, {("adam_lawn", True): 96.0}],
}
# Where the changed entries lie. Traces are changed at one batch size after the other.
PLACES = {name: [(changed, list(changed)) for changed in parts] for name, parts in PARTS.items()}
PLACES["L7"] = [(changed, ADAM[size]) for changed in PARTS["L7"] for size in SIZES]


def judged(name, runs):
    """The one judgement of a claim."""
    [judgement] = judge("study", runs, [CLAIMS[NAMES.index(name)]])
    return judgement


def failing(judgement):
    """The labels of the numbers that fail."""
    return [number.label for number in judgement.numbers if judgement.state(number) == "fails"]


@pytest.mark.parametrize("name", NAMES)
def test_each_number_of_a_rule_can_contradict_alone(name, worlds, tmp_path):
    found = set()
    for place, (changed, only) in enumerate(PLACES[name]):
        runs = mixed(worlds[name[0]], world_of(name)(tmp_path / str(place), changed, only=only))
        judgement = judged(name, runs)
        assert judgement.verdict == "contradicted"
        [label] = failing(judgement)
        found.add(label)
    assert found == {number.label for number in judged(name, worlds[name[0]]).numbers}


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """The papers' worlds without noise: intervals have no width, and margins are sharp."""
    with patch("tests.claims.worlds.noise", lambda *words: 0.0):
        return {"S": madan(tmp_path_factory.mktemp("madan")), "L": gupta(tmp_path_factory.mktemp("gupta"))}


@pytest.mark.parametrize(
    ("name", "cell", "inside", "outside"),
    [
        ("S1", ("plain20", "alpha", 8e-4), (1.24, 1.0, 75.0), (1.26, 1.0, 75.0)),
        ("S4", ("resnet34", "alpha", 1e-4), (1.24, 1.1, 65.0), (1.26, 1.1, 65.0)),
        ("S4", ("resnet34", "alpha", 1e-4), (1 / 1.24, 1.1, 65.0), (1 / 1.26, 1.1, 65.0)),
        ("S6", ("plain20", "beta1", 0.1), (1.49, 0.9, 74.0), (1.51, 0.9, 74.0)),
        ("S6", ("plain20", "beta1", 0.999), (1.26, 0.9, 74.0), (1.24, 0.9, 74.0)),
        ("S7", ("plain20", "beta2", 0.1), (1.49, 1.0, 75.0), (1.51, 1.0, 75.0)),
        ("S8", ("plain20", "epsilon", 1.0), (1.49, 1.0, 75.0), (1.51, 1.0, 75.0)),
        ("S9", ("plain20", None, None), (1.0, 1.0, 70.1), (1.0, 1.0, 69.9)),
        ("S9", ("plain20", None, None), (1.0, 1.0, 79.9), (1.0, 1.0, 80.1)),
        ("S10", ("resnet34", "alpha", 1e-4), (1.05, 1.1, 60.1), (1.05, 1.1, 59.9)),
        ("S10", ("resnet34", "alpha", 1e-4), (1.05, 1.1, 69.9), (1.05, 1.1, 70.1)),
        ("S10", ("resnet34", "alpha", 1e-4), (1.05, 1.49, 65.0), (1.05, 1.51, 65.0)),
        ("S12", ("plain20", "alpha", 1e-5), (4.0, 1.0, 69.9), (4.0, 1.0, 70.1)),
        ("S13", ("plain20", "beta1", 0.1), (1.1, 0.9, 70.1), (1.1, 0.9, 69.9)),
        ("S13", ("plain20", "beta1", 0.1), (1.1, 0.9, 79.9), (1.1, 0.9, 80.1)),
        ("L2", ("adam_lawn", True), 93.41, 93.39),
        ("L2", ("sgd", True), 93.49, 93.51),
        ("L2", ("adam", True), 92.99, 93.01),
        ("L3", ("sgd_lawn", False), 93.01, 92.99),
        ("L3", ("sgd_lawn", False), 94.99, 95.01),
        ("L4", ("sgd", True), 94.79, 94.81),
        ("L4", ("adam_lawn", True), 92.81, 92.79),
        ("L5", ("adamp", True), 93.21, 93.19),
        ("L5", ("adam_lawn", False), 94.29, 94.31),
        ("L6", ("adam_lawn", False, 10.0), 94.89, 94.91),
        ("L8", ("adam_lawn", True), 94.59, 94.61),
    ],
)
def test_margins(name, cell, inside, outside, still, tmp_path):
    found = []
    for place, value in enumerate((inside, outside)):
        with patch("tests.claims.worlds.noise", lambda *words: 0.0):
            changed = world_of(name)(tmp_path / str(place), {cell: value}, only=[cell])
        found += [judged(name, mixed(still[name[0]], changed)).verdict]
    assert found == ["reproduced", "contradicted"]


@pytest.mark.parametrize(("accuracy", "verdict"), [(92.91, "reproduced"), (92.89, "contradicted")])
def test_the_margin_within_which_adamp_is_as_good(accuracy, verdict, still, tmp_path):
    """Beside 93.9 %, at both batch sizes alike."""
    changed = {("adamp", size): accuracy for size in SIZES}
    with patch("tests.claims.worlds.noise", lambda *words: 0.0):
        runs = gupta(tmp_path, changed, only=changed)
    assert verdicts(mixed(still["L"], runs), "L5") == {"L5": verdict}


@pytest.mark.parametrize(("loss", "verdict"), [(0.099, "reproduced"), (0.101, "inconclusive")])
def test_the_loss_at_which_flattening_is_asked_for(loss, verdict, tmp_path):
    with patch("tests.claims.worlds.noise", lambda *words: 0.0):
        assert verdicts(gupta(tmp_path, {"loss": loss, "others' loss": 0.2}), "L7") == {"L7": verdict}


def with_curve(run, name, values):
    """The run with other numbers of that name, epoch by epoch."""
    return replace(run, epochs=[r | {name: value} for r, value in zip(run.epochs, values, strict=True)])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("points", "verdict"), [(2.9, "reproduced"), (3.1, "contradicted")])
def test_the_margin_within_which_accuracies_have_levelled_off(points, verdict, sign, still):
    """The last five epochs against the five before; what came earlier does not count."""
    accuracies = [0.1] * 5 + [0.75 - sign * points / 100] * 5 + [0.75] * 5
    runs = [with_curve(run, "test_accuracy", accuracies) for run in still["S"] if run.config.setting == "default"]
    assert verdicts(runs, "S9") == {"S9": verdict}


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(("factor", "verdict"), [(1.24, "reproduced"), (1.26, "contradicted")])
def test_the_margin_within_which_curves_of_the_test_loss_are_flat(factor, verdict, step, still):
    """Curves that only fall, or only rise, by that factor."""
    curve = [math.exp(math.log(factor) * epoch / 14) for epoch in range(15)][::step]
    runs = [with_curve(run, "test_loss", curve) for run in still["S"]]
    assert verdicts(runs, "S14") == {"S14": verdict}
