"""Fixtures that several folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports ray or triton: no token for a local session, and kernels interpreted on the CPU.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray runs in one of the processes that share the tests; so does each file, for its fixtures."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            starts_ray = "ray_cluster" in getattr(item, "fixturenames", ())
            item.add_marker(pytest.mark.xdist_group("ray" if starts_ray else str(item.path)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real collections in ../shared/data, which are absent here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray session on two CPUs for the whole test run."""
    from gossamer.index.jobs import ray_session

    with ray_session(n_cpus=2):
        yield
