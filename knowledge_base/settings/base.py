"""What every part of the settings is made of."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from knowledge_base.errors import InvalidInputError

ENVIRONMENT_PREFIX = "KB_"
ONE_DAY = 86_400.0


Seconds = Annotated[float, Field(gt=0, le=ONE_DAY, allow_inf_nan=False)]
"""A duration in seconds: above zero, a day at most."""


def refuse_clearly(error: ValidationError, prefix: str = "") -> InvalidInputError:
    """Returns the error that names the setting and what is wrong with it.

    Args:
        error: What pydantic found.
        prefix: Of the environment's variables, where one is to be named.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    problem = "is no setting" if first["type"] == "extra_forbidden" else first["msg"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        path.append(cause.field)
        problem = cause.problem
    elif isinstance(cause, ValueError):
        problem = str(cause)
    field = ".".join(path) or "settings"
    if prefix:
        field = f"{field} ({prefix}{'__'.join(path).upper()})"
    return InvalidInputError(field, problem[0].lower() + problem[1:])


class SettingsPart(BaseModel):
    """Base of the parts of ``Settings``: immutable, and strict about names and values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refuse_clearly(error) from None


def _unset_when_blank(value: Any) -> Any:
    # A variable that is set to nothing, as compose files do, is one that is not set.
    return None if isinstance(value, str) and not value.strip() else value


def _without_credentials(value: str | None) -> str | None:
    if value is not None and "@" in urlsplit(value).netloc:
        raise ValueError("must not hold a user or password; put the key into api_key")
    return value


OptionalText = Annotated[str | None, BeforeValidator(_unset_when_blank)]
OptionalUrl = Annotated[str | None, BeforeValidator(_unset_when_blank), AfterValidator(_without_credentials)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_unset_when_blank)]
OptionalCount = Annotated[int | None, BeforeValidator(_unset_when_blank)]
