"""A short run of the small net on the digits, and its program."""

import jax.numpy as jnp

from adamlab.config import RunConfig
from adamlab.protocol import Protocol
from adamlab.training import build
from adamlab.training.optimizers import traced

PROTOCOL = Protocol("smoke", train_images=200, test_images=70, batch_size=50, epochs=3)
CONFIG = RunConfig("digits", "small", PROTOCOL)


def program_and_state(digits, config=CONFIG):
    program = build.build_program(config, 10, (8, 8, 1), digits.mean, digits.std)
    return program, program.init(jnp.int32(config.seed), traced(config))
