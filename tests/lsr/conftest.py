from pathlib import Path

import pytest

from tests.lsr.tiny import tiny_encoder, write_collection


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("tiny") / "collection")


@pytest.fixture(scope="session")
def encoder_folder(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-encoder") / "encoder"
    tiny_encoder(collection).save(folder)
    return folder
