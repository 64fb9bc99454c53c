"""What requests and answers have in common: strict, frozen, with errors that name the parameter that was meant."""

import difflib
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gossamer.kernels.errors import InputError
from gossamer.serving.errors import describe, printable

_MAX_INT = 2**31 - 1


def _valid_unicode(text: str) -> str:
    if not text.isascii() and printable(text) != text:
        raise ValueError("half of a surrogate pair is no character; send valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
"""A string that can be written as UTF-8."""
Texts = Annotated[list[Text], Field(strict=False)]  # a tuple will do
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Of a collection, retriever or model: lower-case letters, digits, - and _, so that it is a folder's name anywhere."""
Count = Annotated[int, Field(ge=1, le=_MAX_INT)]


class Request(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_parameters(cls, data: Any) -> Any:
        """Say which parameter was probably meant, which pydantic's own refusal does not."""
        known = list(cls.model_fields)
        for name in data if isinstance(data, dict) else ():
            if name not in known:
                nearest = difflib.get_close_matches(str(name), known, n=1)
                meant = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
                raise ValueError(f"{printable(str(name)[:64])}: no such parameter; {meant}")
        return data


class Answer(BaseModel):
    """What a caller gets."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


R = TypeVar("R", bound=Request)


def checked(model: type[R], **values: Any) -> R:
    """Make a request from Python values.

    Raises:
        InputError: A value has the wrong type or is out of range; worded as the service words it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error.errors(include_context=False, include_url=False))) from None
