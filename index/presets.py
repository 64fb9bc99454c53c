"""Presets: a named TOML file, a few overrides, one frozen and checked configuration.

A preset holds one table per part (`[train]`, `[serve]`, …), so that one file describes a scenario. Overrides are
`key=value` with TOML values and dotted keys; an unknown key is refused with the nearest right one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from gossamer.kernels.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def nearest(wrong: str, right: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest right one, or all of them."""
    names = sorted(right)
    close = get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names) or 'none'}."


def preset_names() -> list[str]:
    """Names of the presets that come with gossamer."""
    return sorted(
        f.name.removesuffix(".toml") for f in files("gossamer.configs").iterdir() if f.name.endswith(".toml")
    )


def load_preset(
    preset: str | Path | None, model: type[Config], *, section: str, overrides: Sequence[str] = ()
) -> Config:
    """Read one table of a preset into its configuration class.

    Args:
        preset: a name (see `preset_names`), a path to a TOML file, or None for the defaults of the class.
        model: the frozen pydantic class of the table.
        section: name of the table, such as `"train"`; it may be absent, then the class's defaults hold.
        overrides: `key=value` texts; values are TOML, a bare word is a string, dots go into tables.

    Raises:
        ConfigError: if the preset, a key or a value is wrong; the message names it and the nearest right one.
    """
    values = _section(preset, section) if preset is not None else {}
    return _checked(model, values, overrides, where=f"[{section}]")


def load_config(path: str | Path, model: type[Config], *, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file that is one configuration, whole; paths in it are relative to it.

    Args:
        path: the file.
        model: its frozen pydantic class.
        overrides: as in `load_preset`; paths in them are taken as they are.

    Raises:
        ConfigError: if the file, a key or a value is wrong; the message names it and the nearest right one.
    """
    path = Path(path)
    try:
        values = _parse(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give a file that exists.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no valid TOML: {error}.") from error
    return _checked(model, _beneath(path.absolute().parent, values, model), overrides, where=f"{path}:")


def _checked(model: type[Config], values: dict[str, Any], overrides: Sequence[str], *, where: str) -> Config:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{override!r} is no override; write key=value.")
        *tables, last = key.strip().split(".")
        target = values
        for table in tables:
            target = target.setdefault(table, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{override!r}: {table!r} is a value, not a table; set it whole.")
        target[last] = _value(text.strip())
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where} {_explain(error, model)}") from error


def _beneath(folder: Path, value: Any, kind: Any) -> Any:
    """A value of that type, with the paths in it relative to nothing."""
    if kind is Path and isinstance(value, str):
        return str(folder / value)
    if isinstance(value, dict) and get_origin(kind) is dict:
        return {key: _beneath(folder, one, get_args(kind)[1]) for key, one in value.items()}
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return {
            key: _beneath(folder, one, fields[key].annotation) if key in fields else one
            for key, one in value.items()
        }
    for part in get_args(kind):  # of `X | None`
        value = _beneath(folder, value, part)
    return value


SECTIONS = (
    "bm25",
    "dense_equal_bytes",
    "dense_twin",
    "deploy",
    "encode",
    "evaluate",
    "fold_in",
    "index",
    "log",
    "serve",
    "start",
    "train",
)
"""Every table that a preset may have; each command reads its own."""


def _section(preset: str | Path, section: str) -> dict[str, Any]:
    tables = _read(preset)
    for name, values in tables.items():
        if name not in SECTIONS:
            raise ConfigError(f"the preset {preset} has an unknown table [{name}]; {nearest(name, SECTIONS)}")
        if not isinstance(values, dict):
            raise ConfigError(f"the preset {preset} has {name} = {values!r}; expected a table [{name}].")
    return dict(tables.get(section, {}))


def _read(preset: str | Path) -> dict[str, Any]:
    path = Path(preset)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(
                f"there is no preset file {path}; give a path that exists, or one of {preset_names()}."
            )
        text = path.read_text(encoding="utf-8")
    elif str(preset) in preset_names():
        text = (files("gossamer.configs") / f"{preset}.toml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"there is no preset {str(preset)!r}; {nearest(str(preset), preset_names())}")
    return _parse(text, f"the preset {preset}")


def _parse(text: str, what: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{what} is no valid TOML: {error}.") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    problems = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(
                f"unknown key {key!r}: {nearest(str(problem['loc'][-1]), _fields(model, problem['loc']))}"
            )
        else:
            problems.append(f"{key} = {problem['input']!r}: {problem['msg']}" if key else str(problem["msg"]))
    return "; ".join(problems)


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))  # also of `X | None`
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)
