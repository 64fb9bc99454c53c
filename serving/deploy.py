"""The service on Ray Serve: `deploy` starts it, `down` ends it.

    HTTP ─► router ─► encoders         texts to vectors
              │  └──► shards-0, -1, …  searches, merged by the router as one process merges
              └─────► writer           the one that writes

Every router is the app of one process, `create_app`; only encoding, searching and writing are done elsewhere. All
replicas read the same folders, so on several machines these are on storage that all of them see.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGTERM
from threading import Event
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from gossamer.kernels.errors import BackendError, GossamerError, UnavailableError
from gossamer.serving.collection_config import beneath
from gossamer.serving.collections import configs_of
from gossamer.serving.remote import Call
from gossamer.serving.replicas import DocumentWriter, Encoders, Router, Shards
from gossamer.serving.server import free_port
from gossamer.serving.settings import ServeSettings, refuse_open

logger = logging.getLogger(__name__)

APPLICATION: Final = "gossamer"
"""What Ray Serve knows it by."""
_READY_S: Final = 10.0


class DeployConfig(BaseModel):
    """How many of each there are, and what each may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    routers: PositiveInt = 1
    """Replicas that answer HTTP. Each has one batch of queries of a retriever under way at a time, so let there be at
    least as many as encoders."""
    encoders: PositiveInt = 1
    """Replicas that encode; each has all encoders."""
    shard_groups: PositiveInt = 1
    """Among how many groups of replicas the shards of each index are shared out."""
    shard_replicas: PositiveInt = 1
    """Replicas of each group."""
    router_cpus: PositiveFloat = 0.25
    encoder_cpus: PositiveFloat = 0.5
    shard_cpus: PositiveFloat = 0.5
    writer_cpus: PositiveFloat = 0.25
    max_ongoing: PositiveInt = 16
    """Calls that a replica that is no router takes at once; others wait where they come from."""
    retries: NonNegativeInt = 3
    """How often a call is repeated whose replica was lost."""
    timeout_s: PositiveFloat = 30.0
    """How long a call may take with all repetitions, and with the start of a replica in the place of a lost one."""

    @property
    def cpus(self) -> float:
        """What all replicas take together."""
        shards = self.shard_groups * self.shard_replicas * self.shard_cpus
        return self.routers * self.router_cpus + self.encoders * self.encoder_cpus + shards + self.writer_cpus


def deploy(settings: ServeSettings, config: DeployConfig | None = None) -> str:
    """Start the service in the running Ray session, or put it in the place of the one that runs there.

    Replicas of one that runs are replaced one by one, so no request fails by it.

    Args:
        settings: What to serve, and where; `port=0` takes a free one.
        config: How many replicas there are.

    Returns:
        The URL.

    Raises:
        BackendError: Ray Serve is not installed, or there is no Ray session, or it has not enough CPUs; or a replica
            does not start.
        ConfigError: A collection's file is wrong, or others can reach the address and there are no keys.
    """
    import ray

    serve, config = _ray_serve(), config or DeployConfig()
    if not ray.is_initialized():
        raise BackendError("there is no Ray session; deploy inside of `ray_session()`.")
    there = ray.cluster_resources().get("CPU", 0.0)
    if config.cpus > there:
        raise BackendError(
            f"all replicas together take {config.cpus:g} CPUs, and Ray has {there:g}: have fewer replicas, or "
            "give each less"
        )
    refuse_open(settings.host, settings.keys)
    settings = ServeSettings.model_validate(beneath(Path.cwd(), settings.model_dump()))
    port = settings.port or free_port(settings.host)
    application = _application(settings, config)
    serve.start(http_options={"host": settings.host, "port": port})
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise BackendError(
            f"the service did not start: {_reasons(serve.status()) or error}. Deploy again when that is mended; what "
            "ran before goes on, or `gossamer deploy --down` ends what is left."
        ) from error
    url = f"http://[{settings.host}]:{port}" if ":" in settings.host else f"http://{settings.host}:{port}"
    _refuse_elsewhere(settings.host, port)
    return url


def down() -> bool:
    """End the service that runs in the Ray session, and Ray Serve with it if nothing else runs there.

    Returns:
        Whether there was one.
    """
    serve = _ray_serve()
    there = APPLICATION in serve.status().applications
    if there:
        serve.delete(APPLICATION)
    if not serve.status().applications:
        serve.shutdown()
    return there


def is_connected() -> bool:
    """Whether this process has a Ray session."""
    import ray

    return bool(ray.is_initialized())


def wait_for_signal() -> None:
    """Wait until this process is told to stop."""
    told = Event()
    before = {number: signal.signal(number, lambda *_: told.set()) for number in (SIGINT, SIGTERM)}
    try:
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _application(settings: ServeSettings, config: DeployConfig) -> Any:
    """What `serve.run` runs."""
    serve = _ray_serve()

    def deployment(kind: type[Any], name: str, n_replicas: int, cpus: float, max_ongoing: int) -> Any:
        return serve.deployment(
            kind,
            name=name,
            num_replicas=n_replicas,
            ray_actor_options={"num_cpus": cpus},
            max_ongoing_requests=max_ongoing,
            health_check_period_s=1.0,  # how soon a lost one is noticed that nobody asks
        )

    configs, ask = configs_of(settings), Asking(config)
    retrievers = [one for of in configs.values() for one in of.retrievers.values()]
    readers = [one.encoder for one in retrievers if one.encoder is not None]
    readers += [of.rerank.encoder for of in configs.values() if of.rerank is not None]
    folders = sorted(set(readers))
    encoders = deployment(
        Encoders, "encoders", config.encoders, config.encoder_cpus, config.max_ongoing
    ).bind(folders, int(max(1, config.encoder_cpus)))
    indexes = sorted({one.index for one in retrievers})
    groups = [
        deployment(
            Shards, f"shards-{group}", config.shard_replicas, config.shard_cpus, config.max_ongoing
        ).bind(indexes, group, config.shard_groups)
        for group in range(config.shard_groups)
    ]
    writer = deployment(DocumentWriter, "writer", 1, config.writer_cpus, settings.limits.max_in_flight).bind(
        settings, configs, encoders, ask
    )
    return deployment(
        serve.ingress()(Router),
        "router",
        config.routers,
        config.router_cpus,
        settings.limits.max_in_flight + 64,
    ).bind(settings, configs, encoders=encoders, groups=groups, writer=writer, ask=ask)


def _ray_serve() -> Any:
    """Ray Serve.

    Raises:
        BackendError: it is not installed.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise BackendError(f"Ray Serve is not installed ({error}): install the extra `serve`") from error
    return serve


def _reasons(status: Any) -> str:
    """What replicas ended with: the last line of what Ray Serve says about each deployment, which comes once."""
    deployments = status.applications[APPLICATION].deployments.values()
    return "; ".join(
        dict.fromkeys(of.message.strip().splitlines()[-1] for of in deployments if of.message.strip())
    )


def _refuse_elsewhere(host: str, port: int) -> None:
    """Raises: BackendError: nothing listens, as Ray Serve keeps the address that it was first started with."""
    until = time.monotonic() + _READY_S
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError as error:
            if time.monotonic() > until:
                raise BackendError(
                    f"the service runs, but not at {host}:{port} of this machine ({error}): Ray Serve keeps the "
                    "address that it was first started with. End it (`gossamer deploy --down`), and deploy again."
                ) from error
            time.sleep(0.1)
        else:
            return


class Asking:
    """Starts calls of deployments and waits for their answers; one whose replica is lost is started again.

    Ray Serve sends what a replica has not taken yet to another by itself; what was taken and lost with the replica is
    for the caller to repeat. All calls here may be repeated: encoding and searching change nothing, and a document that
    is put or taken out twice is there or gone all the same, though the second answer counts it as replaced or missing.
    """

    def __init__(self, config: DeployConfig) -> None:
        self._retries, self._timeout_s = config.retries, config.timeout_s

    def __call__(self, calls: Sequence[Call]) -> list[Any]:
        """The answers, in the order of the calls.

        Raises:
            GossamerError: what a call ended with.
            UnavailableError: replicas were lost again and again, or there was no answer in time.
        """
        until = time.monotonic() + self._timeout_s
        started = [call() for call in calls]
        return [self._answer(call, response, until) for call, response in zip(calls, started, strict=True)]

    def _answer(self, call: Call, response: Any, until: float) -> Any:
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        for attempt in range(self._retries + 1):
            if attempt:
                response = call()
            try:
                return response.result(timeout_s=max(0.0, until - time.monotonic()))
            except TimeoutError:
                raise UnavailableError(
                    f"a replica did not answer within {self._timeout_s:g} s: ask again later"
                ) from None
            except RayTaskError as error:
                if isinstance(error.cause, GossamerError):
                    raise error.cause from None
                raise
            except (RayError, RayServeException) as error:
                lost = error
                logger.warning("a replica was lost: %s", error)
        raise UnavailableError("a replica was lost again and again: ask again later") from lost
