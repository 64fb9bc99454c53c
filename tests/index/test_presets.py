"""Presets: names, paths, overrides, and what a wrong key is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, PositiveInt

from gossamer.index.presets import load_config, load_preset, preset_names
from gossamer.kernels.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rate: float = 0.5


class Outer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    steps: PositiveInt = 10
    name: str = "x"
    inner: Inner = Inner()
    maybe: Inner | None = None


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("[train]\nsteps = 5\n[train.inner]\nrate = 0.25\n[serve]\nport = 1\n")
    return path


def test_reads_one_table_and_applies_overrides(preset: Path) -> None:
    config = load_preset(
        preset, Outer, section="train", overrides=["steps=7", "name=two words", "inner.rate=1e-3"]
    )
    assert (config.steps, config.name, config.inner.rate) == (7, "two words", 1e-3)
    assert load_preset(preset, Outer, section="train").inner.rate == 0.25
    assert load_preset(preset, Outer, section="index") == Outer()
    assert load_preset(None, Outer, section="train", overrides=["steps=3"]).steps == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stesp=3", r"unknown key 'stesp': did you mean 'steps'\?"),
        ("inner.rat=3", r"unknown key 'inner.rat': did you mean 'rate'\?"),
        ("maybe.rat=3", r"unknown key 'maybe.rat': did you mean 'rate'\?"),
        ("steps=0", r"steps = 0: Input should be greater than 0"),
        ("steps", r"'steps' is no override; write key=value"),
        ("steps.deep=1", r"'steps' is a value, not a table"),
    ],
)
def test_wrong_overrides_are_named(preset: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_preset(preset, Outer, section="train", overrides=[override])


def test_unknown_presets_are_answered_with_the_nearest(tmp_path: Path) -> None:
    name = preset_names()[0]
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        load_preset(name + "x", Outer, section="train")
    with pytest.raises(ConfigError, match="there is no preset file"):
        load_preset(tmp_path / "absent.toml", Outer, section="train")
    (tmp_path / "broken.toml").write_text("[train\n")
    with pytest.raises(ConfigError, match="no valid TOML"):
        load_preset(tmp_path / "broken.toml", Outer, section="train")


def test_misspelt_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[trian]\nsteps = 5\n")
    with pytest.raises(ConfigError, match=r"unknown table \[trian\]; did you mean 'train'\?"):
        load_preset(path, Outer, section="train")
    path.write_text("train = 5\n")
    with pytest.raises(ConfigError, match=r"train = 5; expected a table \[train\]"):
        load_preset(path, Outer, section="train")


# -- one configuration, whole -----------------------------------------------------------------------


class Place(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    at: Path
    name: str = "x"


class Places(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    one: Path | None = None
    many: dict[str, Path] = {}  # pydantic copies it
    place: Place | None = None
    places: dict[str, Place] = {}
    steps: PositiveInt = 10


def test_paths_of_a_file_are_relative_to_it_and_those_of_overrides_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep").mkdir()
    Path("deep/mine.toml").write_text(
        'one = "a"\nplace = {at = "../b", name = "c"}\n[many]\nd = "e/f"\ng = "/h"\n[places.i]\nat = "j"\n'
    )
    folder = tmp_path / "deep"
    read = load_config("deep/mine.toml", Places)
    assert read.one == folder / "a"
    assert read.many == {"d": folder / "e/f", "g": Path("/h")}
    assert read.place == Place(at=folder / "../b", name="c")
    assert read.places == {"i": Place(at=folder / "j")}
    read = load_config("deep/mine.toml", Places, overrides=["one=k", "many.g=l", "steps=3"])
    assert (read.one, read.many["g"], read.many["d"], read.steps) == (Path("k"), Path("l"), folder / "e/f", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp = 3", r"mine\.toml: unknown key 'stesp': did you mean 'steps'\?"),
        ("[place]\nta = 'x'", r"unknown key 'place\.ta': did you mean 'at'\?"),
        ("steps = 0", r"steps = 0: Input should be greater than 0"),
        ("one = 5", r"one = 5: Input is not a valid path"),
        ("many = 'x'", r"many = .*: Input should be a valid dictionary"),
        ("steps", r"mine\.toml is no valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path, Places)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read .* give a file that exists"):
        load_config(tmp_path / "absent.toml", Places)
    (tmp_path / "latin.toml").write_bytes(b'one = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml is no valid TOML"):
        load_config(tmp_path / "latin.toml", Places)
