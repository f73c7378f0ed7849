"""What the commands take: shared options, and how words become arguments of the Python calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knowledge_base.errors import InvalidInputError

if TYPE_CHECKING:
    from knowledge_base.settings import Settings

RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url", metavar="URL", help="The Redis server; KB_REDIS_URL, else the embedded server, when not given."
    ),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="The namespace; KB_NAMESPACE when not given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only facts with any of these tags; repeatable.")
]
Source = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only facts from this source.")]
Filter = Annotated[str | None, typer.Option("--filter", metavar="JSON", help="A filter as a JSON object.")]
Principals = Annotated[
    list[str] | None, typer.Option("--principal", metavar="NAME", help="Who is asking, as user:ann; repeatable.")
]


@dataclass(frozen=True, slots=True)
class Common:
    """The options of every command."""

    redis_url: str | None = None
    namespace: str | None = None
    as_json: bool = False

    @classmethod
    def of(cls, context: typer.Context, redis_url: str | None, namespace: str | None, as_json: bool) -> Common:
        """Joins the options before the command's name with those after it, which win.

        Args:
            context: Of the command.
            redis_url: As given after the command's name.
            namespace: As given after the command's name.
            as_json: As given after the command's name.
        """
        before = context.obj if isinstance(context.obj, cls) else cls()
        return cls(redis_url or before.redis_url, namespace or before.namespace, as_json or before.as_json)

    def settings(self, **changes: Any) -> Settings:
        """Settings with only what was given, so that the environment has its say in the rest.

        Args:
            changes: Settings that the command itself decides.
        """
        from knowledge_base.settings import Settings

        given = {"redis_url": self.redis_url, "namespace": self.namespace}
        return Settings(**{name: value for name, value in given.items() if value is not None}, **changes)


def json_object(written: str | None, field: str) -> dict[str, Any] | None:
    """Reads a JSON object from an option.

    Args:
        written: The option's value.
        field: What the option is about, for the error.

    Raises:
        InvalidInputError: It is not a JSON object.
    """
    if written is None:
        return None
    try:
        value = json.loads(written)
    except json.JSONDecodeError as error:
        raise InvalidInputError(field, f"is not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError):
        raise InvalidInputError(field, "is not valid JSON that can be read") from None
    if not isinstance(value, dict):
        raise InvalidInputError(field, "must be a JSON object")
    return value


def filters_of(tags: list[str] | None, source: str | None, written: str | None) -> Mapping[str, Any] | None:
    """Joins ``--tag``, ``--source`` and ``--filter`` into one filter; a fact must pass all of them.

    Args:
        tags: Any of these tags.
        source: Exactly this source.
        written: A filter as a JSON object.
    """
    named: dict[str, Any] = {}
    if tags:
        named["tags"] = tags
    if source is not None:
        named["source"] = source
    parts = [part for part in (named, json_object(written, "filters")) if part]
    if len(parts) == 2:
        return {"and": parts}
    return parts[0] if parts else None


def content_of(word: str, longest: int) -> str:
    """The content itself, or what stands on standard input when the word is ``-``.

    One line break at the end of standard input is dropped: it comes from the shell, not from the writer.

    Args:
        word: The argument.
        longest: Characters that are read at most.

    Raises:
        InvalidInputError: Standard input is too long or not UTF-8.
    """
    if word != "-":
        return word
    longest_bytes = 4 * longest + 2
    raw = sys.stdin.buffer.read(longest_bytes + 1)
    if len(raw) > longest_bytes:
        raise InvalidInputError("content", f"has more than {longest} characters", limit=longest)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("content", "is not valid UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")
