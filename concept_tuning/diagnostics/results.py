"""How results of an analysis are kept: frozen, typed, saved as JSON and read back equal."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from concept_tuning.engine.runs import read_whole, write_atomically
from concept_tuning.errors import RunError

#: Configuration of every result: ``@dataclass(frozen=True, kw_only=True, config=RESULT)`` of pydantic.
RESULT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, ser_json_inf_nan="strings")

#: Arrays of up to this many numbers are written as plain lists, larger ones as the base64 of their bytes.
_PLAIN = 4096

#: Most bytes of a result that is read: those of some thousand pictures have some ten million.
_LARGEST = 1 << 30

#: Kinds of arrays that are read: truth values and numbers. Objects would need code, and an array of texts takes its
#: width for each of them, however short they are.
_KINDS = "biuf"

ResultT = TypeVar("ResultT")


def _encode(array: np.ndarray) -> dict[str, Any]:
    head = {"dtype": array.dtype.str, "shape": list(array.shape)}
    if array.size <= _PLAIN:
        # JSON has no NaN and no infinity; as strings any reader takes them.
        values = array.ravel().tolist()
        if array.dtype.kind == "f":
            values = [value if math.isfinite(value) else str(value) for value in values]
        return head | {"values": values}
    return head | {"base64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")}


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype} is not read")
    raw = (
        np.array(value["values"], dtype)
        if "values" in value
        else np.frombuffer(base64.b64decode(value["base64"]), dtype)
    )
    return raw.reshape(value["shape"])


#: A numpy array as a field of a result.
Array = Annotated[np.ndarray, BeforeValidator(_decode), PlainSerializer(_encode, when_used="json")]


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Interval:
    """An estimate with its interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        level: Confidence level of the interval, 0..1.
        n: How many observations it rests on.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    n: int


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Unavailable:
    """An analysis that was not made, and why.

    Attributes:
        analysis: Its name.
        reason: What it needs and is not there, as a sentence for the user.
    """

    analysis: str
    reason: str


def save_result(result: object, path: Path) -> None:
    """Write a result as JSON; a reader sees the old file or the new one, never a part."""
    write_atomically(path, TypeAdapter(type(result)).dump_json(result, indent=1).decode("utf-8") + "\n")


def load_result(kind: type[ResultT], path: Path) -> ResultT:
    """Read a result of a kind.

    Raises:
        RunError: if it is missing, damaged, of another kind or no file, or takes more memory than there is.
    """
    try:
        return TypeAdapter(kind).validate_json(read_whole(path, _LARGEST))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); run the diagnosis again.") from error
    except MemoryError as error:
        raise RunError(f"{path} takes more memory than there is; run the diagnosis again on fewer pictures.") from error
    except (ValidationError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunError(f"{path} is not a saved {kind.__name__}; run the diagnosis again.") from error
