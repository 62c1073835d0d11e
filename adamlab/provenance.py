"""What a result came from. No JAX: whoever measures says on which device."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance(device: str) -> dict[str, Any]:
    """What a result came from: the commit, with a + if files had changed since; versions; the device."""
    packages = ("adamlab", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "commit": _commit(),
        "versions": versions,
        "device": device,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
    }


def _commit() -> str | None:
    """The short hash of the checkout that this file lies in; None for an installed copy."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("ls-files", Path(__file__).name) == "":
            return None
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
