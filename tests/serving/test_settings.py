"""Settings: what can be served, and the limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gossamer.kernels.errors import TooLargeError
from gossamer.serving import Limits, ServeSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing to serve"),
        ({"encoder": "e", "recommender": "r"}, "index is not"),
        ({"recommender": "r", "port": 70_000}, "port"),
        ({"recommender": "r", "prot": 80}, "prot"),
        ({"recommender": "r", "limits": {"max_k": 0}}, "max_k"),
        ({"recommender": "r", "limits": {"max_kk": 1}}, "max_kk"),
    ],
)
def test_what_cannot_be_served_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServeSettings.model_validate(given)


def test_settings_are_plain_values_and_frozen() -> None:
    settings = ServeSettings(recommender=Path("r"), limits=Limits(max_k=5))
    assert ServeSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert settings.host == "127.0.0.1"
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_a_limit_lets_through_what_it_allows_and_names_itself() -> None:
    limits = Limits(max_k=5)
    limits.check("max_k", 5, "k")
    with pytest.raises(TooLargeError, match=r"k is 6, and this service allows 5: .* limits\.max_k"):
        limits.check("max_k", 6, "k")
