"""Whether the arguments of a job are those of its call."""

from __future__ import annotations

import collections.abc
import inspect
import json
import os
import sys
import types
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from knowledge_base.errors import InvalidInputError

NOT_ARGUMENTS = frozenset({"self", "progress", "namespace"})
ARGUMENTS_CHARACTERS = 16_384
LISTS = (collections.abc.Iterable, collections.abc.Sequence, collections.abc.Collection, list, tuple)
STRICT = ConfigDict(strict=True)


def checked_arguments(call: Callable[..., Any], arguments: Any) -> dict[str, Any]:
    """Returns the arguments of a job, which are kept as JSON.

    Args:
        call: What the job calls.
        arguments: What the caller passed; None for none.

    Raises:
        InvalidInputError: They are no JSON object, are too long, or the call takes no such argument or no such value.
    """
    given = _checked_json(arguments)
    hints = _hints(call)
    parameters = {
        name: parameter for name, parameter in inspect.signature(call).parameters.items() if name not in NOT_ARGUMENTS
    }
    for name in given:
        if name == "namespace":
            raise InvalidInputError("arguments.namespace", "is given beside the arguments, as namespace of the job")
        if name not in parameters:
            raise InvalidInputError(f"arguments.{name}", f"is no argument; there are {', '.join(parameters)}")
    for name, parameter in parameters.items():
        if name in given:
            _check(name, given[name], _plain(hints.get(name, Any)))
        elif parameter.default is inspect.Parameter.empty:
            raise InvalidInputError(f"arguments.{name}", "is required")
    return given


def _checked_json(arguments: Any) -> dict[str, Any]:
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping) or not all(isinstance(name, str) for name in arguments):
        raise InvalidInputError("arguments", "must be a mapping from names to values")
    try:
        encoded = json.dumps(dict(arguments), allow_nan=False, default=_text_of_path)
    except (TypeError, ValueError, RecursionError):
        raise InvalidInputError("arguments", "must be values that JSON can say") from None
    if len(encoded) > ARGUMENTS_CHARACTERS:
        raise InvalidInputError(
            "arguments", f"have more than {ARGUMENTS_CHARACTERS} characters as JSON", limit=ARGUMENTS_CHARACTERS
        )
    read: dict[str, Any] = json.loads(encoded)
    return read


def _text_of_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError


def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    # Names that only a type checker imports stand for anything.
    unknown: dict[str, Any] = {}
    known = vars(sys.modules[call.__module__])
    while True:
        try:
            return get_type_hints(call, globalns=known, localns=unknown)
        except NameError as error:
            unknown[str(error.name)] = Any


def _plain(hint: Any) -> Any:
    """The type of what JSON has in the place of what a call takes."""
    origin, inner = get_origin(hint), tuple(_plain(one) for one in get_args(hint))
    if hint is Path or hint is os.PathLike or origin is os.PathLike:
        return str
    if hint is timedelta:
        return float
    if origin in (Union, types.UnionType):
        # With anything beside it, a mapping would be anything as well.
        return Union[tuple(one for one in inner if one is not Any) or (Any,)]  # noqa: UP007 - made at run time
    if origin in LISTS and inner:
        return list[inner[0]]  # type: ignore[valid-type]
    if origin is collections.abc.Mapping:
        return dict[str, Any]
    return hint


def _check(name: str, value: Any, hint: Any) -> None:
    try:
        TypeAdapter(hint, config=STRICT).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise InvalidInputError(f"arguments.{name}", problem[0].lower() + problem[1:]) from None
