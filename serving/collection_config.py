"""`collection.toml`: what a collection answers from. Paths are relative to the file.

n_candidates = 100

[retrievers.words]
index = "index"
encoder = "../../encoder"

[retrievers.meaning]
index = "dense"
weight = 0.5
timeout_ms = 50

[fusion]
kind = "reciprocal_rank"

[passages]
max_words = 200

[rerank]
encoder = "../../large"
n_candidates = 50
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from gossamer.index.fusion import Method
from gossamer.kernels.errors import ConfigError, ExistsError
from gossamer.lsr.passages import Passages
from gossamer.serving.errors import describe
from gossamer.serving.messages import Name

CONFIG: Final = "collection.toml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RetrieverConfig(_Frozen):
    """An index, and how it is searched."""

    index: Path
    """Folder, of an index of any kind."""
    encoder: Path | None = None
    """Folder of the encoder that made it; without one, vectors come with queries and documents."""
    weight: PositiveFloat = 1.0
    """What it counts in fusion."""
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of approximate search; exact if not given."""
    timeout_ms: PositiveFloat | None = None
    """After so long, an answer of several retrievers does without it."""


class RerankConfig(_Frozen):
    """An encoder that orders the best anew, from their texts."""

    encoder: Path
    n_candidates: PositiveInt = 50
    """How many of the best; the answer ends with these."""
    timeout_ms: PositiveFloat = 1_000.0
    """After so long, the answer does without it."""


class CollectionConfig(_Frozen):
    """What a collection answers from."""

    retrievers: dict[Name, RetrieverConfig] = Field(default_factory=dict)
    """By name; of the first one's index are the texts."""
    n_candidates: PositiveInt = 100
    """Documents that each retriever gives to fusion or reranking, where there is one; the answer, with all its pages,
    ends with them."""
    fusion: Method | None = None
    """How several lists become one; by reciprocal ranks if not given."""
    rerank: RerankConfig | None = None
    passages: Passages | None = None
    """How documents that are written are split; then passages are indexed, and a document is found by its best one."""
    recommender: Path | None = None
    """Folder."""
    clicks: Path | None = None
    """Folder of the interactions that come in; made if it is not there. Without one, none are taken."""

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if not self.retrievers and self.recommender is None:
            raise ValueError("nothing to answer from: give [retrievers.NAME] or recommender")
        if self.passages is not None and not self.retrievers:
            raise ValueError("passages is set and there are no retrievers: there are no documents to split")
        if self.clicks is not None and self.recommender is None:
            raise ValueError("clicks is set and recommender is not: interactions are kept for one")
        return self

    @classmethod
    def read(cls, folder: Path) -> CollectionConfig:
        """Read a collection's file; paths come back relative to nothing.

        Raises:
            ConfigError: it is not there or wrong; the message names the key.
        """
        path = folder / CONFIG
        try:
            config = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}); write it.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no TOML: {error}.") from error
        except ValidationError as error:
            raise ConfigError(f"{path}: {describe(error.errors())}.") from error
        return cls.model_validate(beneath(folder.absolute(), config.model_dump()))

    def make(self, folder: Path) -> None:
        """Make a collection's folder, with an empty index for each retriever.

        Raises:
            ExistsError: there is a folder.
        """
        from gossamer.index.inverted import InvertedIndex
        from gossamer.index.vectors import SparseVectors
        from gossamer.lsr.formats import load_encoder

        if (folder / CONFIG).exists():
            raise ExistsError(f"there is something at {folder}; choose another name")
        folder.mkdir(parents=True, exist_ok=True)
        for one in self.retrievers.values():
            assert one.encoder is not None  # as those that are made are
            encoder = load_encoder(one.encoder)
            nothing = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
            InvertedIndex.build(folder / one.index, nothing, encoder=encoder.info, replace=True)
        lines = []
        for name, one in self.retrievers.items():
            lines += [
                f"[retrievers.{name}]",
                f"index = {_toml(one.index)}",
                f"encoder = {_toml(one.encoder)}",
                "",
            ]
        if self.passages is not None:
            lines += [
                "[passages]",
                *(f"{key} = {value}" for key, value in self.passages.model_dump().items()),
            ]
        from gossamer.index.disk import disk, replace_file

        replace_file(folder / CONFIG, "\n".join(lines).encode())
        disk().sync(folder)

    def refuse_outside(self, folder: Path) -> None:
        """Raises: ConfigError: an index lies elsewhere, so deleting the collection would not be deleting that."""
        for name, one in self.retrievers.items():
            if folder.absolute() not in one.index.absolute().parents:
                raise ConfigError(
                    f"the index of {name} lies outside of {folder}: delete {folder / CONFIG} instead"
                )


def beneath(folder: Path, values: Any) -> Any:
    """The same, with every path relative to a folder."""
    if isinstance(values, dict):
        return {key: beneath(folder, value) for key, value in values.items()}
    return folder / values if isinstance(values, Path) else values


def _toml(value: object) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
