"""Whatever suits the OpenAPI document, and much that does not, gets an answer of the documented shape: no 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gossamer.serving import RunningService, ServeSettings, create_app
from gossamer.serving.access import add_key
from gossamer.serving.errors import KINDS
from gossamer.serving.schemas import ErrorBody
from tests.serving.conftest import eventually

schemathesis = pytest.importorskip("schemathesis")

_STATUSES = {kind.status for kind in KINDS} | {400, 405}


@pytest.fixture
def service(
    stage: Any, encoder_folder: Path, recommender_folder: Path, tmp_path: Path
) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it is, and the headers of somebody who may do everything."""
    key = add_key(tmp_path / "keys.json", "tester", "admin")
    made = ServeSettings(
        index=stage.index.path,
        encoder=encoder_folder,
        recommender=recommender_folder,
        collections=tmp_path / "collections",
        encoders={"bm25": encoder_folder},
        keys=tmp_path / "keys.json",
    )
    with RunningService(made) as service:
        eventually(lambda: httpx2.get(f"{service.url}/readyz", timeout=10).status_code == 200)
        yield service.url, {"Authorization": f"Bearer {key}"}


OPERATIONS = [
    operation
    for result in schemathesis.openapi.from_dict(
        create_app(ServeSettings(recommender=Path("r"))).openapi()
    ).get_all_operations()
    for operation in [result.ok()]
    if "bulk" not in operation.path  # whose lines have tests of their own
]


@pytest.mark.parametrize("collection", ["default", None])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_request_makes_the_service_fail(
    operation: Any, collection: str | None, service: tuple[str, dict[str, str]]
) -> None:
    if collection is not None and "{collection}" not in operation.path:
        pytest.skip("of no collection")

    url, headers = service

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        if collection is not None:
            case.path_parameters["collection"] = collection
        response = case.call(base_url=url, headers=headers)
        if response.status_code >= 400:
            assert response.status_code in _STATUSES - {500, 503}, response.text
            ErrorBody.model_validate_json(response.content)
        else:
            case.validate_response(response)

    check()
