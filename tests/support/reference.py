"""What filters mean, written once more in plain Python, to compare with."""

from __future__ import annotations

import operator as operators
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

TIMES = ("created_at", "updated_at")
ORDERS = {"eq": operators.eq, "gt": operators.gt, "gte": operators.ge, "lt": operators.lt, "lte": operators.le}


def _values(fact: Mapping[str, Any], field: str) -> list[Any]:
    if field == "tags":
        return list(fact["tags"])
    if not field.startswith("metadata."):
        return [fact["id" if field == "fact_id" else field]]
    value: Any = fact["metadata"]
    for step in field.split(".")[1:]:
        if not isinstance(value, Mapping) or step not in value:
            return []
        value = value[step]
    return value if isinstance(value, list) else [value]


def _has(values: list[Any], wanted: Any) -> bool:
    return any(type(value) is type(wanted) and value == wanted for value in values)


def _instant(wanted: Any) -> float:
    if isinstance(wanted, str):
        wanted = datetime.fromisoformat(wanted)
    if isinstance(wanted, datetime):
        return (wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)).timestamp()
    return float(wanted)


def _holds(values: list[Any], operator: str, wanted: Any) -> bool:
    if operator in {"in", "nin"}:
        return any(_has(values, one) for one in wanted) is (operator == "in")
    if operator == "all":
        return all(_has(values, one) for one in wanted)
    return _has(values, wanted) is (operator == "eq")


def _matches_clause(fact: Mapping[str, Any], field: str, wanted: Any) -> bool:
    if field == "and":
        return all(matches(fact, one) for one in wanted)
    if field == "or":
        return any(matches(fact, one) for one in wanted)
    if field == "not":
        return not matches(fact, wanted)
    if isinstance(wanted, list):
        wanted = {"in": wanted}
    elif not isinstance(wanted, dict):
        wanted = {"eq": wanted}
    if field in TIMES:
        return all(ORDERS[operator](_instant(fact[field]), _instant(value)) for operator, value in wanted.items())
    values = _values(fact, field)
    return all(_holds(values, operator, value) for operator, value in wanted.items())


def matches(fact: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Whether a fact passes a filter."""
    return all(_matches_clause(fact, field, wanted) for field, wanted in filters.items())


def is_visible(fact: Mapping[str, Any], principals: Sequence[str]) -> bool:
    """Whether a caller may see a fact."""
    return not fact["principals"] or bool(set(fact["principals"]) & set(principals))
