"""A study's folder takes the runs that a figure may draw together, and refuses others."""

from dataclasses import replace

import pytest

from adamlab import recording, records
from adamlab.config import RunConfig
from adamlab.protocol import PROTOCOLS
from adamlab.records import RecordsError

CONFIG = RunConfig("digits", "plain20", PROTOCOLS["smoke"])


@pytest.fixture(autouse=True)
def run(tmp_path):
    """One run of the study that is there already; it does not say which data it is of."""
    recording.open_run(records.run_folder(tmp_path, CONFIG), CONFIG, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": replace(CONFIG.protocol, epochs=3)}, "epochs 3 here, 2 there"),
        ({"precision": "bf16"}, "precision bf16 here, float32 there"),
        ({"microbatch": 25}, "microbatch 25 here, None there"),
        ({"seed": 1, "optimizer": "adam_lawn", "trace_every": 1}, None),
        ({"model": "resnet34", "precision": "bf16"}, None),
    ],
)
def test_a_study_takes_what_a_figure_may_draw_together(tmp_path, change, said):
    other = replace(CONFIG, hyperparameters=replace(CONFIG.hyperparameters, alpha=0.5), **change)
    if said is None:
        recording.check_comparable(tmp_path, [other], "digits")
    else:
        with pytest.raises(RecordsError, match=rf"digits-smoke/plain20 holds other runs \({said}\)"):
            recording.check_comparable(tmp_path, [other], "digits")


def test_a_study_is_of_one_version_of_its_data(tmp_path):
    recording.check_comparable(tmp_path, [CONFIG], "version 2.0.0")
    other = replace(CONFIG, seed=1)
    recording.open_run(records.run_folder(tmp_path, other), other, {"data": "version 1.0.0"})
    recording.check_comparable(tmp_path, [CONFIG], "version 1.0.0")
    with pytest.raises(RecordsError, match=r"holds other runs \(version 2.0.0 here, version 1.0.0 there\); choose"):
        recording.check_comparable(tmp_path, [CONFIG], "version 2.0.0")


def test_the_networks_of_a_study_are_of_one_version_of_its_data(tmp_path):
    """A claim about both would compare one version's images with another's."""
    other = replace(CONFIG, model="resnet34")
    recording.open_run(records.run_folder(tmp_path, other), other, {"data": "version 1.0.0"})
    recording.check_comparable(tmp_path, [CONFIG], "version 1.0.0")
    with pytest.raises(RecordsError, match=r"digits-smoke/resnet34 holds other runs \(version 2.0.0 here, version 1.0"):
        recording.check_comparable(tmp_path, [CONFIG], "version 2.0.0")


def test_a_study_of_batch_sizes_may_cut_a_batch_and_leave_another_whole(tmp_path):
    small = RunConfig("digits", "plain20", replace(PROTOCOLS["lawn-smoke"], batch_size=50))
    large = replace(small, protocol=replace(small.protocol, batch_size=100), microbatch=50)
    recording.open_run(records.run_folder(tmp_path, small), small, {})
    recording.check_comparable(tmp_path, [large], "digits")
    recording.check_comparable(tmp_path, [large, small], "digits")
    with pytest.raises(RecordsError, match=r"holds other runs \(norm_group 25 here, None there\)"):
        recording.check_comparable(tmp_path, [large, replace(small, norm_group=25)], "digits")


def test_a_study_is_of_one_float32(tmp_path):
    """On a GPU it may be TF32, as JAX is told."""
    recording.check_comparable(tmp_path, [CONFIG], "digits")
    with pytest.raises(RecordsError, match="JAX_DEFAULT_MATMUL_PRECISION highest here, None there"):
        recording.check_comparable(tmp_path, [CONFIG], "digits", "highest")
