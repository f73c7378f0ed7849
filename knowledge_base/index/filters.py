"""The one place where filters become query text, escaped by construction."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from knowledge_base.connection.giving_way import giving_way
from knowledge_base.errors import InvalidInputError
from knowledge_base.index.schema import META_FIELD, PRINCIPALS_FIELD
from knowledge_base.keyspace import OPEN

METADATA_PREFIX = "metadata."
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEEPEST = 16
"""How deep combinators may be nested."""

LONGEST_METADATA_VALUE = 256
"""Characters of a metadata string up to which it can be filtered on."""

WEIGHTLESS = "=>{$weight:0}"
"""Keeps a clause out of the score.

It must stand at each clause and at alternatives as a whole: the server loses the one at a clause where it skips ahead
among alternatives, and the one at a group of clauses where it stands alone.
"""

DOCUMENT_MARK = "*"
"""A value, beside its id, of the field ``document`` of every part of a document."""

FACTS_ONLY = f"-@document:{{\\{DOCUMENT_MARK}}}"
"""The clause for parts of facts that are no documents."""

_TAG_FIELDS = {"tags": "tags", "source": "source", "fact_id": "fact_id", "document_id": "document"}
_TIME_FIELDS = {"created_at", "updated_at"}
_COMBINATORS = {"and", "or", "not"}
_RANGES = {"gt": "({} +inf", "gte": "{} +inf", "lt": "-inf ({}", "lte": "-inf {}"}
_ESCAPED = re.compile(r"([^A-Za-z0-9_\u0080-\U0010ffff])")
_LLAMA_OPERATORS = {
    "==": "eq",
    "!=": "ne",
    "in": "in",
    "any": "in",
    "nin": "nin",
    "all": "all",
    "contains": "eq",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
}


def _refuse(problem: str, limit: float | None = None) -> InvalidInputError:
    return InvalidInputError("filters", problem, limit=limit)


def tag_clause(field: str, values: Iterable[str]) -> str:
    """Returns the clause for passages that have one of some values.

    Args:
        field: A tag field of the index.
        values: Any strings.
    """
    escaped = [_ESCAPED.sub(r"\\\1", value) for value in values]
    if len(escaped) == 1:
        # The server takes the weight from an alternative only; a lone value would keep its own.
        escaped *= 2
    return f"@{field}:{{{'|'.join(escaped)}}}{WEIGHTLESS}"


def visibility_clause(principals: Sequence[str] | None) -> str:
    """Returns the clause that is part of every query: what this caller may see.

    Args:
        principals: Who is asking.
    """
    return tag_clause(PRINCIPALS_FIELD, [OPEN, *(principals or ())])


def metadata_labels(metadata: Mapping[str, Any]) -> list[str]:
    """Returns one label for each value of a fact's metadata that can be filtered on.

    Args:
        metadata: A JSON object; nested objects give dotted paths, lists one label an item.
    """
    found: dict[str, None] = {}
    _collect_labels("", metadata, found)
    return list(found)


def _collect_labels(path: str, value: Any, found: dict[str, None]) -> None:
    if isinstance(value, Mapping):
        for key, inner in giving_way(value.items()):
            _collect_labels(f"{path}.{key}" if path else key, inner, found)
    elif isinstance(value, list | tuple):
        for inner in giving_way(value):
            if not isinstance(inner, list | tuple | Mapping):
                _collect_labels(path, inner, found)
    elif not isinstance(value, str) or len(value) <= LONGEST_METADATA_VALUE:
        found[_metadata_label(path, value)] = None


def _metadata_label(path: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:
        # By far the fastest way, for metadata may hold ten thousand of them.
        return f"{_quoted(path)}={value}"
    return f"{_quoted(path)}={json.dumps(value)}"


@lru_cache(maxsize=4_096)
def _quoted(path: str) -> str:
    return json.dumps(path)[1:-1]


class FilterCompiler:
    """Compiles filters to query text.

    Args:
        most_clauses: How many clauses and values a filter may have.
    """

    def __init__(self, most_clauses: int) -> None:
        self._most = most_clauses

    def compile(self, filters: Any, principals: Sequence[str] | None) -> str:
        """Returns the query text, without brackets, for what a caller may see and asks for.

        Args:
            filters: A mapping or LlamaIndex ``MetadataFilters``; None or empty for all.
            principals: Who is asking.

        Raises:
            InvalidInputError: A field, operator or value cannot be filtered on.
        """
        clause = self.clause(filters)
        visible = visibility_clause(principals)
        return f"{visible} {clause}" if clause else visible

    def clause(self, filters: Any) -> str:
        """Returns the query text of the filter alone, empty for none.

        Args:
            filters: As for ``compile``.

        Raises:
            InvalidInputError: A field, operator or value cannot be filtered on.
        """
        if filters is None:
            return ""
        mapping = _from_llama_index(filters) if hasattr(filters, "condition") else filters
        if not isinstance(mapping, Mapping):
            raise _refuse("must be a mapping or LlamaIndex MetadataFilters")
        return _joined(_Compilation(self._most).conjunction(mapping))


class _Clause(NamedTuple):
    """A part of a filter."""

    text: str
    negated: bool = False
    is_plain: bool = True
    """Whether the text has no negation inside."""

    def __str__(self) -> str:
        return f"-{self.text}" if self.negated else self.text

    def __neg__(self) -> _Clause:
        return self._replace(negated=not self.negated)


def _all_of(clauses: Sequence[_Clause]) -> _Clause:
    if len(clauses) == 1:
        return clauses[0]
    plain = all(one.is_plain and not one.negated for one in clauses)
    return _Clause(f"({_joined(clauses)})", is_plain=plain)


def _any_of(alternatives: Sequence[_Clause]) -> _Clause:
    """Returns alternatives in a form that the server gets right.

    RediSearch 2.10 loses what passes, and lets through what does not, where it skips ahead among alternatives of which
    one has a negation inside. So these are written as what is none of the opposites.
    """
    if len(alternatives) == 1:
        return alternatives[0]
    if all(one.is_plain and not one.negated for one in alternatives):
        return _Clause(f"({'|'.join(f'({one})' for one in alternatives)}){WEIGHTLESS}")
    return -_all_of([-one for one in alternatives])._replace(is_plain=False)


def _joined(clauses: Iterable[_Clause]) -> str:
    return " ".join(map(str, clauses))


class _Compilation:
    def __init__(self, most: int) -> None:
        self._most = most
        self._clauses = 0
        self._depth = 0

    def conjunction(self, mapping: Mapping[Any, Any]) -> list[_Clause]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refuse(f"is nested deeper than {DEEPEST}", DEEPEST)
        clauses = [clause for key, value in mapping.items() for clause in self._entry(key, value)]
        self._depth -= 1
        return clauses

    def _count(self, clauses: int = 1) -> None:
        self._clauses += clauses
        if self._clauses > self._most:
            raise _refuse(f"has more than {self._most} clauses and values", self._most)

    def _entry(self, key: Any, value: Any) -> list[_Clause]:
        if not isinstance(key, str):
            raise _refuse("field names must be strings")
        if key in _COMBINATORS:
            return self._combined(key, value)
        self._count()
        conditions = value if isinstance(value, Mapping) else {"in" if _is_list(value) else "eq": value}
        if not conditions:
            raise _refuse(f"{key!r} has no condition")
        return [
            clause for operator, operand in conditions.items() for clause in self._condition(key, operator, operand)
        ]

    def _combined(self, combinator: str, value: Any) -> list[_Clause]:
        if combinator == "not":
            if not isinstance(value, Mapping) or not value:
                raise _refuse("'not' takes a filter")
            return [-_all_of(self.conjunction(value))]
        if not _is_list(value) or not value or not all(isinstance(part, Mapping) and part for part in value):
            raise _refuse(f"{combinator!r} takes a list of filters")
        self._count(len(value))
        parts = [self.conjunction(part) for part in value]
        if combinator == "or":
            return [_any_of([_all_of(part) for part in parts])]
        return [clause for part in parts for clause in part]

    def _condition(self, key: str, operator: Any, operand: Any) -> list[_Clause]:
        if operator in _RANGES:
            if key not in _TIME_FIELDS:
                raise _refuse(f"{operator!r} is for created_at and updated_at; {key!r} takes eq, ne, in, nin or all")
            return [_Clause(f"@{key}:[{_RANGES[operator].format(_milliseconds(key, operand))}]{WEIGHTLESS}")]
        if key in _TIME_FIELDS:
            if operator != "eq":
                raise _refuse(f"{key!r} takes eq, gt, gte, lt or lte")
            instant = _milliseconds(key, operand)
            return [_Clause(f"@{key}:[{instant} {instant}]{WEIGHTLESS}")]
        field, label = _tag_field(key)
        return self._tag_condition(key, field, operator, operand, label)

    def _tag_condition(
        self, key: str, field: str, operator: Any, operand: Any, label: Callable[[Any], str]
    ) -> list[_Clause]:
        if operator in {"eq", "ne"}:
            return [_Clause(tag_clause(field, [label(operand)]), negated=operator == "ne")]
        if operator not in {"in", "nin", "all", "any"}:
            raise _refuse(f"unknown operator {str(operator)[:32]!r} for {key!r}; use eq, ne, in, nin or all")
        if not _is_list(operand) or not operand:
            raise _refuse(f"{operator!r} of {key!r} takes a list with at least one value")
        self._count(len(operand))
        labels = [label(value) for value in operand]
        if operator == "all":
            return [_Clause(tag_clause(field, [value])) for value in labels]
        return [_Clause(tag_clause(field, labels), negated=operator == "nin")]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


def _tag_field(key: str) -> tuple[str, Callable[[Any], str]]:
    if key in _TAG_FIELDS:
        return _TAG_FIELDS[key], lambda value: _label(key, value)
    path = key.removeprefix(METADATA_PREFIX)
    if path == key or not path:
        raise _refuse(
            f"{key[:64]!r} cannot be filtered on; use tags, source, fact_id, document_id, created_at, updated_at "
            "or metadata.<path>"
        )
    return META_FIELD, lambda value: _metadata_value(key, path, value)


def _label(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _refuse(f"values of {key!r} must be strings that are not blank")
    if any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise _refuse(f"values of {key!r} must have no control characters or lone surrogates")
    return value.strip()


def _metadata_value(key: str, path: str, value: Any) -> str:
    if value is not None and not isinstance(value, str | int | float | bool):
        raise _refuse(f"values of {key[:64]!r} must be strings, numbers, booleans or None")
    if isinstance(value, float) and not math.isfinite(value):
        raise _refuse(f"values of {key[:64]!r} must be finite")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise _refuse(f"values of {key[:64]!r} must fit into 64 bits")
    if isinstance(value, str) and len(value) > LONGEST_METADATA_VALUE:
        raise _refuse(
            f"values of {key[:64]!r} can be filtered on up to {LONGEST_METADATA_VALUE} characters",
            LONGEST_METADATA_VALUE,
        )
    return _metadata_label(path, value)


def _milliseconds(key: str, value: Any) -> str:
    problem = _refuse(f"{key!r} takes an ISO 8601 string, a datetime or seconds since 1970")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise problem from None
    if isinstance(value, datetime):
        return str(((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e12:
        raise problem
    return str(round(value * 1000))


def _from_llama_index(filters: Any, depth: int = 1) -> dict[str, Any]:
    if depth > DEEPEST:
        raise _refuse(f"is nested deeper than {DEEPEST}", DEEPEST)
    parts = []
    for item in filters.filters:
        if hasattr(item, "condition"):
            parts.append(_from_llama_index(item, depth + 1))
            continue
        operator = getattr(item.operator, "value", item.operator)
        if operator not in _LLAMA_OPERATORS:
            raise _refuse(f"operator {str(operator)[:32]!r} of MetadataFilters is not supported")
        parts.append({item.key: {_LLAMA_OPERATORS[operator]: item.value}})
    if not parts:
        return {}
    condition = getattr(filters.condition, "value", filters.condition) or "and"
    if condition == "not":
        return {"not": {"or": parts}}
    return {condition: parts}
