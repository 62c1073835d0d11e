"""Settings of the whole suite: several CPU devices, no implicit broadcasting between ranks, the same at every run."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # also where there is a GPU
# Most of the suite's time is XLA, compiling programs that then run for milliseconds: here it optimises little, in the
# tests' processes, too. With 0 the suite runs what users run, as CI does on its newer Python.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    # JAX 0.10 lowers fused loops by a pipeline of its own, half of the time that small programs take to compile.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters")
# The tests' many processes compile the same programs: one cache for all of them, and for this run of the suite alone.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="adamlab-xla-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import pytest
from hypothesis import settings

# Neither chance nor a busy machine decides; the slow variants draw anew at every run.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
# Real multi-device tests run in this process: XLA splits the host into four devices, before its backend starts.
jax.config.update("jax_num_cpu_devices", 4)
# (n,) + (n, 1) is a bug that broadcasts silently; here it raises.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The longest tests first: at the end one would keep one worker busy and the other waiting."""
    longest = (
        "test_submitit_queues_what_was_preempted_and_says_what_was_killed",
        "test_a_kill_of_each_kind",
        "test_a_killed_process_ends_the_job_and_the_next_one_continues[1]",
    )
    items.sort(key=lambda item: item.name not in longest)


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory):
    """A tensorflow-datasets folder with `tests.data.photos`: 64 images to train on, 13 to evaluate on."""
    from tests.data import photos

    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    photos.write(folder, {"train": photos.photos(64, seed=0, huge=1), "validation": photos.photos(13, seed=1)})
    return folder
