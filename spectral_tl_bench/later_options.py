"""Options that a method or an objective got after results of it had been published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer


class LaterOptions(BaseModel):
    """Base class of what has options that a record keeps.

    An option that is added must neither make finished results another thing nor leave open what they were made with.
    """

    later: ClassVar[Mapping[str, Any]] = {}
    """Options added after results were published, with the value that results before them had. With that value an
    option is not written down, so that such results stay what they are, to the byte; the default may be another one."""

    @model_serializer(mode="wrap")
    def _as_it_was(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without later options that have their earlier value."""
        unsaid = {name for name, value in self.later.items() if getattr(self, name) == value}
        return {name: value for name, value in values(self).items() if name not in unsaid}


def as_recorded(kind: type[LaterOptions], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a record, with what it does not say because it came later."""
    return {**kind.later, **options}
