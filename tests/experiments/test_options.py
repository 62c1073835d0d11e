"""What both studies' command lines say arrives where it is used."""

from pathlib import Path

import pytest

from adamlab.protocol import PROTOCOLS
from experiments import large_batch, sensitivity
from experiments.options import make_execution


def configs_of(study, arguments):
    if study is large_batch:
        return study.make_configs(arguments, "cifar10", PROTOCOLS["lawn-laptop"])
    protocol = PROTOCOLS["laptop"]
    return study.make_configs(arguments, study.make_grid(arguments, protocol), "cifar10", protocol)


@pytest.mark.parametrize("study", [sensitivity, large_batch])
def test_options_arrive(study, monkeypatch):
    given, options = [], ["--data-dir=there", "--workers=2", "--skip-corrupt", "--checkpoint-minutes=3"]
    arguments = study.parse_arguments([*options, "--model=plain20", "--trace=4", "--precision=bf16", "--microbatch=25"])
    configs = configs_of(study, arguments)
    assert {(config.trace_every, config.precision, config.microbatch) for config in configs} == {(4, "bf16", 25)}
    monkeypatch.setattr("adamlab.data.load", lambda *values: given.append(values))
    execution = make_execution(arguments)
    execution.load("imagenet2012")
    assert given == [("imagenet2012", Path("there"), 2, True)]
    assert execution.checkpoint_minutes == 3
