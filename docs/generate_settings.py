"""Writes ``docs/reference/settings.md`` from the settings themselves; ``make docs`` runs it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from knowledge_base.settings import ENVIRONMENT_PREFIX, NAMESPACE_PATTERN, Settings

PAGE = Path(__file__).parent / "reference" / "settings.md"

TYPE_NAMES = {float: "number", int: "integer", SecretStr: "secret", str: "string"}
BOUNDS = (("gt", "> {}"), ("ge", "≥ {}"), ("lt", "< {}"), ("le", "≤ {}"))
LIMITS_SAID_ELSEWHERE = {"namespace": f"`{NAMESPACE_PATTERN.pattern}`"}

INTRODUCTION = """\
# Settings

This page is generated from the code: `make docs` writes it.

Every setting has a default. You change one by an argument or by its environment variable; the
argument wins.

```python
from knowledge_base import Settings, Timeouts

settings = Settings(namespace="support", timeouts=Timeouts(search=2.0))
```

```console
$ export KB_NAMESPACE=support KB_TIMEOUTS__SEARCH=2
```

Two underscores lead into a part. An argument `Timeouts(…)` replaces the whole part, and no
`KB_TIMEOUTS__…` variable counts beside it; a dict, `timeouts={"search": 2.0}`, replaces only what
it names. Settings are read once, when `Settings` is made, and
can't be changed afterwards. A value that is refused raises `InvalidInputError`, which names the
setting and its variable; so does an unknown name within a part. `repr` shows no key and no
password.

All calls but `start` and `close` also take `timeout=`, their own budget in seconds, in place of the one listed here.
"""


def page() -> str:
    """Returns the page as it should be."""
    fields = Settings.model_fields
    parts = {name: part for name, field in fields.items() if (part := _part_of(field))}
    alone = {name: field for name, field in fields.items() if name not in parts}
    sections = [INTRODUCTION, "## General\n\n" + _table(alone)]
    for name, part in parts.items():
        title = part.__name__.removesuffix("Settings")
        sections.append(f"## {title}\n\n{inspect.getdoc(part)}\n\n{_table(part.model_fields, name)}")
    return "\n".join(sections)


def _part_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _table(fields: dict[str, FieldInfo], part: str = "") -> str:
    rows = [
        "| setting | variable | type | default | limits | what it is |",
        "|---|---|---|---|---|---|",
    ]
    for name, field in fields.items():
        path = [part, name] if part else [name]
        variable = ENVIRONMENT_PREFIX + "__".join(path).upper()
        cells = [
            f"`{'.'.join(path)}`",
            f"`{variable}`",
            _type(field.annotation),
            _default(field.default),
            LIMITS_SAID_ELSEWHERE.get(name, _limits(field.metadata)),
            field.description or "",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _type(kind: Any) -> str:
    if get_origin(kind) in {Union, UnionType}:
        return " or ".join(_type(one) for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    return TYPE_NAMES.get(kind) or str(kind.__name__).lower()


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:_}`" if isinstance(value, int) else f"`{value}`"


def _limits(metadata: list[Any]) -> str:
    found = []
    for name, sign in BOUNDS:
        for constraint in metadata:
            bound = getattr(constraint, name, None)
            if bound is not None:
                found.append(sign.format(f"{bound:_.15g}"))
    return ", ".join(found)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
