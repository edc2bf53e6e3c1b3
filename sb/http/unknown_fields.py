"""What is said of a field that a body does not have: the nearest one it has, if one is near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

UNKNOWN = "there is no such field"
#: Comparing costs by the length; no field of ours has half of this.
MOST_COMPARED = 80


def reason_for(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """Return the reason that refuses what is at the end of the place within a body."""
    return suggesting(str(place[-1]), _known_at(model, place[:-1]))


def suggesting(name: str, known: Iterable[str]) -> str:
    """Return the reason with the nearest of the known names, where one is near."""
    near = get_close_matches(name[:MOST_COMPARED], known, n=1)
    return f"{UNKNOWN}; did you mean {near[0]}?" if near else UNKNOWN


def _known_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    found: type[BaseModel] | None = model
    for name in place:
        if isinstance(name, str):  # A number is an item of the list that was named before it.
            field = found.model_fields.get(name) if found else None
            found = _model_in(field.annotation) if field else None
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model of an annotation, also of a list of it or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((one for arg in get_args(annotation) if (one := _model_in(arg))), None)
