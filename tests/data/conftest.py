"""Small CIFAR archives that `adamlab.data` takes for the original ones, and the real data where it is prepared."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from adamlab.data import cifar
from tests.data.archives import Archive, write_archive


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Where decoded images are kept: not with the user's own, and anew for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def serve(monkeypatch):
    """Makes `adamlab.data` believe that an archive, or what stands at `url`, is the original one."""

    def serve(archive: Archive, url: str | None = None) -> Archive:
        digest = hashlib.sha256(archive.path.read_bytes()).hexdigest()
        source = replace(cifar.SOURCES[archive.name], url=url or archive.url, sha256=digest)
        monkeypatch.setitem(cifar.SOURCES, archive.name, source)
        monkeypatch.setattr(cifar, "SIZES", {"train": len(archive.train["label"]), "test": len(archive.test["label"])})
        return archive

    return serve


@pytest.fixture(params=["cifar10", "cifar100"])
def archive(request, tmp_path, serve) -> Archive:
    """A small archive of each data set, served from a file."""
    return serve(write_archive(tmp_path, request.param))


@pytest.fixture
def cifar10(tmp_path, serve) -> Archive:
    """A small CIFAR-10 archive, served from a file."""
    return serve(write_archive(tmp_path, "cifar10"))


@pytest.fixture(scope="session")
def real_data_dir() -> str:
    """Where the real CIFAR-10 is prepared; tests that need it are skipped elsewhere."""
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not Path(folder, "cifar10", "3.0.2", "dataset_info.json").is_file():
        pytest.skip("needs the real CIFAR-10, prepared in TFDS_DATA_DIR")
    return folder
