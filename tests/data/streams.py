"""Streams of small photographs, and what ought to be in them."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import tensorflow_datasets as tfds

from adamlab.data.plan import Plan
from adamlab.protocol import Protocol

SIZE = 32
PROTOCOL = Protocol("photographs", train_images=64, test_images=13, batch_size=16, image_size=SIZE)


def plan(dataset, **others):
    """A plan of small photographs; entries of `PROTOCOL` and of the plan may be others."""
    protocol = replace(PROTOCOL, **{name: others.pop(name) for name in PROTOCOL.__dict__ if name in others})
    return Plan(dataset, protocol, **({"seed": 0, "pieces": 1, "test_batch": 8} | others))


def epochs(source):
    """The pieces of each epoch, as (training, evaluation)."""
    per_epoch, steps = source.position(1, 0), source.position(0, source.plan.protocol.steps_per_epoch)
    pieces = [source[index] for index in range(len(source))]
    split = [pieces[first : first + per_epoch] for first in range(0, len(pieces), per_epoch)]
    return [(epoch[:steps], epoch[steps:]) for epoch in split]


def joined(pieces, name="image"):
    return np.concatenate([piece[name] for piece in pieces])


def hashes(images):
    return Counter(hashlib.sha256(image.tobytes()).hexdigest() for image in images)


def stored(dataset, folder, split):
    """Each encoded image of a split and its label, in the order of the records, as tensorflow-datasets reads them."""
    builder = tfds.builder_from_directory(folder / dataset.name / "1.0.0")
    decoders = {"image": tfds.decode.SkipDecoding()}
    return [(bytes(x["image"]), int(x["label"])) for x in builder.as_data_source(split, decoders=decoders)]
