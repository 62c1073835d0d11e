"""Settings of the whole suite: several CPU devices, no implicit broadcasting between ranks, float32 exact matmuls."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import jax

# Real multi-device tests run in this process: XLA splits the host into four devices, before its backend starts.
jax.config.update("jax_num_cpu_devices", 4)
# (n,) + (n, 1) is a bug that broadcasts silently; here it raises.
jax.config.update("jax_numpy_rank_promotion", "raise")
