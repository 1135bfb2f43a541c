"""The base of every part of a trial's configuration: a checked, frozen section, and the types of its fields."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Called:
    """Annotates a key with names by which it is known elsewhere, for the error message of someone who uses them."""

    def __init__(self, *names: str) -> None:
        self.names = names


class InsteadOfZero:
    """Annotates a key that does not allow 0 with what does what a 0 may have been meant to do."""

    def __init__(self, advice: str) -> None:
        self.advice = advice


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no conversions, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class OneOf:
    """Annotates a string that must be one of some names, whose list may grow while the program runs."""

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.names())}

    def _checked(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"choose one of {', '.join(self.names())}")
        return name
