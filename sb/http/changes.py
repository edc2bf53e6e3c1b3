"""Bodies that change part of something: a field left out keeps what is stored."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationInfo, field_validator

from sb.http.bodies import Body


class Changes(Body):
    """Fields to change; null is a value only where the field may be empty."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name not in cls.nullable:
            msg = "must not be null; leave the field out to keep what is stored"
            raise ValueError(msg)
        return value

    @property
    def given(self) -> dict[str, Any]:
        """What the caller named, by field."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}
