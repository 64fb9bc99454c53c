"""`ray job submit -- gossamer … train` on a running cluster, as its users do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest

pytestmark = [
    pytest.mark.skipif(find_spec("aiohttp") is None, reason="`ray job submit` needs ray[default]"),
    pytest.mark.xdist_group("ray"),
]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The address of a one-machine cluster's dashboard; the cluster ends with its process."""
    port = free_port()
    options = ["--head", "--block", f"--port={free_port()}", "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    options += [f"--dashboard-agent-listen-port={free_port()}"]  # its default may be another cluster's
    options += [f"--dashboard-port={port}", "--dashboard-host=127.0.0.1", "--object-store-memory=100000000"]
    head = subprocess.Popen(
        [*RAY, "start", *options], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(f"{url}/api/version"):
            assert head.poll() is None, "ray start ended"
            assert time.monotonic() < deadline, "the dashboard did not start"
            time.sleep(0.3)
        yield url
    finally:
        head.terminate()
        head.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_submitted_job_trains_on_the_running_cluster(dashboard: str, tmp_path: Path) -> None:
    rows = [
        f"u{user},i{(user % 3) * 10 + item}" for user in range(30) for item in range(10) if (user + item) % 4
    ]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(rows) + "\n", encoding="utf-8")
    train = [sys.executable, "-m", "gossamer.serving", "recsys", "train", str(tmp_path / "log.csv")]
    small = [word for text in ("n_epochs=2", "width=16", "sparsity.nnz=4") for word in ("--set", text)]
    small += ["--log", "features=[]", "--log", "min_per_user=1", "--log", "min_per_item=1"]
    command = [*RAY, "job", "submit", "--address", dashboard, "--", *train, str(tmp_path / "run"), *small]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120
        )
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break  # else the dashboard is up, and its agent not yet
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "run" / "factors.safetensors").exists()
