"""The numbers that the two papers print."""


def set_name(dataset: str) -> str:
    """A data set's name as they are listed by it, without a version of tensorflow-datasets'.

    >>> set_name("imagenet2012:5.1.0")
    'imagenet2012'
    """
    return dataset.partition(":")[0]


# Sensitivity paper, appendix C: test accuracies in %, "roughly", by network and alpha; the others at their defaults.
# Of all curves, the plain net's among them, it says that they "plateau at roughly 75%".
SENSITIVITY: dict[tuple[str, float], float] = {
    ("resnet34", 1e-3): 75.0,
    ("resnet34", 1e-4): 65.0,
}

# LAWN paper, tables 1 (adamp) and 2: test accuracies in %, by data set and optimizer, one per batch size.
LAWN: dict[tuple[str, str], dict[int, float]] = {
    ("cifar10", "adamp"): {256: 93.75, 10_000: 93.76},
    ("cifar10", "sgd"): {256: 93.99, 4_000: 93.48, 10_000: 92.99},
    ("cifar10", "sgd_lawn"): {256: 93.96, 4_000: 93.50, 10_000: 93.43},
    ("cifar10", "adam"): {256: 93.48, 4_000: 92.93, 10_000: 92.63},
    ("cifar10", "adam_lawn"): {256: 93.91, 4_000: 93.74, 10_000: 93.84},
    ("cifar100", "adamp"): {256: 72.87, 10_000: 71.93},
    ("cifar100", "sgd"): {256: 73.49, 4_000: 71.68, 10_000: 71.07},
    ("cifar100", "sgd_lawn"): {256: 73.67, 4_000: 72.71, 10_000: 71.80},
    ("cifar100", "adam"): {256: 70.84, 4_000: 68.91, 10_000: 68.61},
    ("cifar100", "adam_lawn"): {256: 72.99, 4_000: 73.12, 10_000: 72.97},
    ("imagenet2012", "sgd"): {256: 76.00, 16_000: 74.48},
    ("imagenet2012", "sgd_lawn"): {256: 76.12, 16_000: 75.56},
    ("imagenet2012", "adam"): {256: 71.16, 16_000: 70.60},
    ("imagenet2012", "adam_lawn"): {256: 76.18, 16_000: 76.07},
}
