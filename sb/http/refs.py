"""Paths of secrets as they come in: as long as an index entry takes, which counts bytes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from sb.http.bodies import Label, Text
from sb.ops.targets import LONG_REF, MAX_REF_BYTES, fits_ref


def _fits(ref: str) -> str:
    if not fits_ref(ref):
        raise ValueError(LONG_REF)
    return ref


_Length = AfterValidator(_fits)
SecretRef = Annotated[Text, Field(min_length=1, max_length=MAX_REF_BYTES), _Length]
#: What a request names: people decide about it as they see it.
TargetRef = Annotated[Label, Field(min_length=1, max_length=MAX_REF_BYTES), _Length]
