"""The service on Ray Serve: it answers as one process does, and goes on when replicas are killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count, cycle
from pathlib import Path
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gossamer.index import InvertedIndex
from gossamer.index.sharded import ShardedIndex
from gossamer.kernels.errors import BackendError, ConfigError, InputError, UnavailableError
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Client, RunningService, ServeSettings
from gossamer.serving.cli import app
from gossamer.serving.collections import Collections
from gossamer.serving.deploy import Asking, DeployConfig, _reasons, deploy
from tests.contracts.engine import Answering, EngineContract, untimed
from tests.serving.conftest import DOCUMENTS, LIMITS

pytestmark = [
    pytest.mark.skipif(find_spec("grpc_reflection") is None, reason="Ray Serve needs the extra serve"),
    pytest.mark.xdist_group("ray"),
]

SCALE = {
    "routers": 2,
    "encoders": 2,
    "shard_groups": 2,
    **dict.fromkeys(("router_cpus", "encoder_cpus", "shard_cpus", "writer_cpus"), 0.05),
}
COLLECTION = '[retrievers.words]\nindex = "../../{index}"\nencoder = "{encoder}"\n'


class Deployed(NamedTuple):
    """A deployment, and the same folders in this process."""

    url: str
    here: Collections


@pytest.fixture(scope="module")
def deployed(
    ray_cluster: None,
    index_folder: Path,
    encoder_folder: Path,
    recommender_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    """By the command: `default` as in `tiny_engine`, the same texts `whole` and in 3 shards as `many`, and `notes`."""
    root = tmp_path_factory.mktemp("deployed")
    encoder = Bm25Encoder.load(encoder_folder)
    random = np.random.default_rng(0)
    words = [encoder.term(number) for number in range(encoder.n_terms)]
    texts = [" ".join(random.choice(words, 6)) for _ in range(200)]
    documents = pa.table(
        {"id": [f"d{n}" for n in range(200)], "text": texts, "year": random.integers(0, 5, 200)}
    )
    vectors = encoder.encode_documents(texts)
    InvertedIndex.build(root / "whole", vectors, documents=documents, encoder=encoder.info)
    ShardedIndex.build(root / "many", vectors, n_shards=3, documents=documents, encoder=encoder.info)
    shutil.copytree(index_folder, root / "notes")
    for name in ("whole", "many", "notes"):
        (root / "collections" / name).mkdir(parents=True)
        config = COLLECTION.format(index=name, encoder=encoder_folder)
        (root / "collections" / name / "collection.toml").write_text(config, encoding="utf-8")
    settings = ServeSettings(
        index=index_folder,
        encoder=encoder_folder,
        recommender=recommender_folder,
        collections=root / "collections",
        port=0,
        refresh_s=600,  # so that routers look only when they are asked to
        limits=LIMITS,
    )
    told = settings.model_dump(mode="json", exclude_defaults=True)
    limits = "".join(f"{key} = {value}\n" for key, value in told.pop("limits").items())
    serve = "".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items())
    (root / "service.toml").write_text(f"[serve]\n{serve}[serve.limits]\n{limits}", encoding="utf-8")
    scale = [word for key, value in SCALE.items() for word in ("--scale", f"{key}={value}")]
    output = run("deploy", "--preset", root / "service.toml", *scale, "--port", 0, "--detach")
    yield Deployed(output.split("listening on ")[1].strip(), Collections.open(settings))
    assert "ended" in run("deploy", "--down")


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.output


def replicas(deployment: str) -> dict[str, Any]:
    """The actors of a deployment by name."""
    import ray

    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return {name: ray.get_actor(name, namespace="serve") for name in names if f"#{deployment}#" in name}


def kill_one(deployment: str) -> str:
    import ray

    name, actor = next(iter(replicas(deployment).items()))
    ray.kill(actor)
    return name


def await_answers(n: int, answered: Semaphore, asking: Sequence[Future[Any]]) -> None:
    """Wait for so many answers, or raise what came instead."""
    for _ in range(n):
        while not answered.acquire(timeout=0.2):
            for one in asking:
                if one.done():
                    one.result()


@contextmanager
def ending(stop: Event) -> Iterator[None]:
    """Have threads stop at the end, whatever happens."""
    try:
        yield
    finally:
        stop.set()


class TestDeployed(EngineContract):
    @pytest.fixture
    def answering(self, deployed: Deployed) -> Iterator[Answering]:
        with Client(deployed.url, retries=0, timeout_s=60) as client:
            yield client

    @pytest.fixture
    def answering_nothing(self, empty_service: RunningService) -> Iterator[Answering]:
        with Client(empty_service.url) as client:  # what is deployed serves something
            yield client


QUERIES = [
    "list path",
    "sort order ascending",
    "one more segment",
    "python object",
    "nothing",
    "a a a first byte",
]


def test_whole_and_in_shards_it_is_one_processs_answer_to_the_bit(deployed: Deployed) -> None:
    found = {}
    for name in ("whole", "many"):
        here = deployed.here[name]
        with Client(deployed.url, collection=name, retries=0, timeout_s=60) as client:
            for options in (
                {},
                {"offset": 7, "k": 3},
                {"filters": {"year": {">": 2}}},
                {"k": 50, "explain": False},
            ):
                for query in QUERIES:
                    answer = client.search(query, **options)
                    assert answer.model_copy(update={"took_ms": 0.0, "times_ms": {}}) == here.search(
                        query, **options
                    ).model_copy(update={"took_ms": 0.0, "times_ms": {}})
            batch = client.search_batch(QUERIES[:4], k=10)
            assert untimed(batch) == untimed(here.search_batch(QUERIES[:4], k=10))
            found[name] = untimed(batch)
            assert [client.get(f"d{n}") for n in range(3)] == [here.get(f"d{n}") for n in range(3)]
            with pytest.raises(InputError, match="deploy again"):
                client.reload()
    assert found["whole"] == found["many"]


@pytest.mark.parametrize(
    ("deployments", "retries"),
    [
        (("shards-0", "encoders", "shards-1"), 0),
        (("router",), 3),  # what a router has taken is lost with it, so that clients ask again
    ],
)
def test_no_request_fails_or_errs_while_replicas_are_killed(
    deployed: Deployed, deployments: Sequence[str], retries: int
) -> None:
    expected = {query: untimed(deployed.here["many"].search(query, k=20)) for query in QUERIES}
    stop, answered = Event(), Semaphore(0)

    def ask(first: int) -> int:
        with Client(deployed.url, collection="many", retries=retries, timeout_s=60) as client:
            for number, query in zip(count(1), cycle([*QUERIES[first:], *QUERIES[:first]])):
                assert untimed(client.search(query, k=20)) == expected[query]
                answered.release()
                if stop.is_set():
                    return number
        raise AssertionError("a cycle does not end")

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, first) for first in range(4)]
        killed = []
        with ending(stop):
            for deployment in deployments:
                await_answers(12, answered, asking)
                killed.append((deployment, kill_one(deployment)))
            await_answers(40, answered, asking)
        assert sum(one.result() for one in asking) >= 12 * len(deployments) + 40
    for deployment, name in killed:
        assert name not in replicas(deployment)


def test_what_was_acknowledged_is_there_after_the_writer_was_killed(deployed: Deployed) -> None:
    stop, answered = Event(), Semaphore(0)

    def write(writer: int) -> list[str]:
        ids: list[str] = []
        version = ""
        with Client(deployed.url, collection="notes", retries=0, timeout_s=60) as client:
            while not stop.is_set():
                id_ = f"note {writer} {len(ids)}"
                version = client.put([{"id": id_, "text": "a path of my own"}]).version
                ids.append(id_)
                answered.release()
            for id_ in ids:  # whichever router answers
                hits = client.search("path", k=1, filters={"id": id_}, min_version=version).hits
                assert [hit.id for hit in hits] == [id_]
        return ids

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, writer) for writer in range(4)]
        killed = []
        with ending(stop):
            for _ in range(2):
                await_answers(8, answered, writing)
                killed.append(kill_one("writer"))
            await_answers(8, answered, writing)
        ids = [id_ for one in writing for id_ in one.result()]
    assert not set(killed) & set(replicas("writer"))
    notes = deployed.here["notes"]
    notes.refresh()
    health = notes.health().search
    assert health is not None
    assert health.n_documents == len(DOCUMENTS) + len(ids)
    with Client(deployed.url, collection="notes", timeout_s=60) as client:
        assert client.delete(ids[:3]).n_deleted == 3
        assert client.delete(filters={"id": ids[3:5]}).n_deleted == 2
        with pytest.raises(InputError, match="twice"):
            client.put([{"id": "twin"}, {"id": "twin"}])


def test_what_does_not_fit_is_refused_before_anything_is_started(
    ray_cluster: None, index_folder: Path, tmp_path: Path
) -> None:
    settings = ServeSettings(index=index_folder, port=0)
    with pytest.raises(BackendError, match=r"take 65 CPUs, and Ray has 2"):
        deploy(settings, DeployConfig(encoders=128))
    with pytest.raises(ConfigError, match="did you mean 'routers'"):
        run("deploy", "--index", index_folder, "--scale", "router=2")


def test_what_kept_replicas_from_starting_is_said_once() -> None:
    messages = [
        "",
        "failed 3 times:\nTraceback\nMismatchError: no",
        "Retrying:\nMismatchError: no\n",
        "no memory",
    ]
    deployments = {str(place): SimpleNamespace(message=message) for place, message in enumerate(messages)}
    status = SimpleNamespace(applications={"gossamer": SimpleNamespace(deployments=deployments)})
    assert _reasons(status) == "MismatchError: no; no memory"


# -- asking, without a cluster


class Response:
    """What a call of a deployment gives."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def result(self, *, timeout_s: float) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def calls(*outcomes: Any) -> tuple[Callable[[], Response], list[Any]]:
    """A call with an outcome each time that it is started, and those that are left."""
    left = list(outcomes)
    return lambda: Response(left.pop(0)), left


def test_a_lost_call_is_started_again_and_only_that() -> None:
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    lost, left = calls(ActorDiedError(), ActorUnavailableError("gone", None), "answer")
    well, others = calls("at once", "again")
    assert Asking(DeployConfig(retries=2))([lost, well]) == ["answer", "at once"]
    assert (left, others) == ([], ["again"])


def test_a_call_is_given_up_in_the_end() -> None:
    from ray.exceptions import ActorDiedError

    lost, left = calls(*[ActorDiedError()] * 5)
    with pytest.raises(UnavailableError, match="again and again"):
        Asking(DeployConfig(retries=3))([lost])
    assert len(left) == 1
    late, left = calls(TimeoutError(), "answer")
    with pytest.raises(UnavailableError, match="within 30 s"):
        Asking(DeployConfig())([late])
    assert left == ["answer"]


def test_an_error_of_ours_comes_back_as_it_was_and_is_not_repeated() -> None:
    from ray.exceptions import RayTaskError

    refused, left = calls(RayTaskError("search", "", InputError("k is 0")), "answer")
    with pytest.raises(InputError, match="k is 0"):
        Asking(DeployConfig())([refused])
    assert left == ["answer"]
