"""What comes in: JSON bodies and queries, checked once, refused by field and never by value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, Self, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from sb.errors import InvalidInputError, SbError
from sb.http.unknown_fields import reason_for

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32
#: How many bad fields one refusal names.
MAX_REASONS = 50
#: From here on a body is read in a thread: it would hold everybody else up.
LARGE_BODY_BYTES = 32 * 1024
UNSTORABLE = "Text must not hold NUL bytes or lone surrogates."

M = TypeVar("M", bound=BaseModel)
#: Text that came in; NUL bytes and lone surrogates are refused before any model sees it.
Text = str


#: Controls, direction marks and other characters that change how the rest is shown.
_UNSHOWN = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufff9-\ufffb"
)
#: Text that names something people decide about: it looks like what it is.
Label = Annotated[Text, Field(pattern=f"^[^{_UNSHOWN}]*$")]


class MisplacedError(ValueError):
    """Something is wrong at a place within what was checked; the place is below its own."""

    def __init__(self, place: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.place = place


class InvalidJsonError(SbError):
    code = "invalid_json"
    status = 400
    message = "The body is not valid JSON in UTF-8."


class UnsupportedMediaTypeError(SbError):
    code = "unsupported_media_type"
    status = 415
    message = "Send the body as application/json."


class Body(BaseModel):
    """A JSON object in which unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """Query parameters; unknown ones are ignored, a known one may be given once, lists excepted.

    So the caller's identity named in a query (`user_id` and the like) changes nothing.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="after")
    def _in_utc(self) -> Self:
        # Here, because a time near either end of the calendar has no UTC form: 400, not 500.
        for name, value in self:
            if isinstance(value, datetime):
                object.__setattr__(self, name, value.astimezone(UTC))
        return self


def parse_body(model: type[M], raw: bytes, *, content_type: str | None, optional: bool) -> M:
    """Return the body as the model, or refuse it naming every bad field."""
    if not raw and optional:
        return model()
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError
    found = _load(raw)
    if not isinstance(found, dict):
        raise InvalidInputError("The body must be a JSON object.")
    _check_texts(found, depth=0)
    _refuse_unknown(model, found)
    try:
        return model.model_validate(found, strict=True)
    except ValidationError as problem:
        raise _invalid(model, problem) from None  # pydantic's text repeats the input


def parse_query(model: type[M], found: Mapping[str, list[str]]) -> M:
    """Return the query parameters as the model, or refuse them naming every bad one."""
    values: dict[str, str | list[str]] = {}
    for name, field in model.model_fields.items():
        given = found.get(name, [])
        several = get_origin(field.annotation) is list
        if len(given) > 1 and not several:
            raise InvalidInputError(fields=[{"field": name, "reason": "given more than once"}])
        if given:
            _check_texts(given, depth=0)
            values[name] = given if several else given[0]
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        raise _invalid(model, problem) from None
    except OverflowError:  # a time whose offset carries it out of the calendar
        raise InvalidInputError from None


def _refuse_unknown(model: type[BaseModel], found: Mapping[str, Any]) -> None:
    """Refuse members the model does not have, before a hundred thousand of them cost anything."""
    if model.model_config.get("extra") != "forbid":
        return
    unknown = sorted(found.keys() - model.model_fields.keys())[:MAX_REASONS]
    if unknown:
        raise InvalidInputError(
            fields=[{"field": name[:300], "reason": reason_for(model, [name])} for name in unknown]
        )


def _load(raw: bytes) -> Any:
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise InvalidJsonError from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a key is given twice"
        raise ValueError(msg)
    return found


def _refuse_constant(_name: str) -> NoReturn:
    msg = "NaN and Infinity are not JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    # 1e400 would become infinity, which no JSON column takes.
    found = float(text)
    return found if math.isfinite(found) else _refuse_constant(text)


def _check_texts(found: Any, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidJsonError("The body is nested too deeply.")
    match found:
        case str():
            _check_text(found)
        case dict():
            for key, value in found.items():
                _check_texts(key, depth=depth)
                _check_texts(value, depth=depth + 1)
        case list():
            for value in found:
                _check_texts(value, depth=depth + 1)


def _check_text(found: str) -> None:
    try:
        found.encode()  # a lone surrogate has no UTF-8; this is a hundred times faster than a loop
    except UnicodeEncodeError:
        raise InvalidInputError(UNSTORABLE) from None
    if "\x00" in found:
        raise InvalidInputError(UNSTORABLE)


def _invalid(model: type[BaseModel], problem: ValidationError) -> InvalidInputError:
    errors = problem.errors(include_input=False, include_url=False)
    return InvalidInputError(fields=[_fault(model, error) for error in errors[:MAX_REASONS]])


def _fault(model: type[BaseModel], error: ErrorDetails) -> dict[str, str]:
    # The library's own words before a reason of ours; the context stays here, it may hold input.
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        reason = reason_for(model, error["loc"])
    place = getattr(error.get("ctx", {}).get("error"), "place", ())
    return {"field": ".".join(map(str, (*error["loc"], *place)))[:300], "reason": reason[:300]}
