"""Measurements: of a loss while it is trained (`flattening`), and of what its end owes to a hyperparameter."""
