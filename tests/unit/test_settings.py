"""Settings: defaults as promised, one variable each, absurd values refused by name, no secret shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.settings import (
    BreakerSettings,
    ChunkingSettings,
    EmbeddingSettings,
    Limits,
    RetrievalSettings,
    Settings,
    SettingsPart,
    Timeouts,
    redacted_url,
)

PARTS: dict[str, type[SettingsPart]] = {
    "timeouts": Timeouts,
    "limits": Limits,
    "breaker": BreakerSettings,
    "embedding": EmbeddingSettings,
    "chunking": ChunkingSettings,
    "retrieval": RetrievalSettings,
}
NUMBERS = [
    (part, name)
    for part, model in PARTS.items()
    for name, field in model.model_fields.items()
    if field.annotation in (int, float)
]


def variable(part: str, name: str) -> str:
    return f"KB_{part}__{name}".upper()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("timeouts", "redis", 2.0),
        ("timeouts", "file", 5.0),
        ("timeouts", "llama_index", 10.0),
        ("timeouts", "embedding", 30.0),
        ("timeouts", "document", 30.0),
        ("timeouts", "search", 10.0),
        ("limits", "pool_connections", 50),
        ("limits", "content_chars", 1_000_000),
        ("limits", "metadata_bytes", 65_536),
        ("limits", "query_chars", 10_000),
        ("limits", "top_k", 1_000),
        ("breaker", "failures", 5),
        ("breaker", "reset_after", 10.0),
        ("embedding", "provider", "local"),
        ("embedding", "max_concurrent_requests", 10),
        ("embedding", "pool_size", 100),
        ("retrieval", "vector_weight", 0.5),
    ],
)
def test_default_is_as_promised(part: str, name: str, value: object) -> None:
    assert getattr(getattr(Settings(), part), name) == value


def test_without_a_url_no_server_is_named() -> None:
    settings = Settings()

    assert settings.redis_url is None
    assert settings.namespace == "default"
    assert settings.data_dir is None


@pytest.mark.parametrize(("part", "name"), NUMBERS)
def test_each_number_is_read_from_its_variable(part: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(getattr(Settings(), part), name)
    other = default / 2 if isinstance(default, float) else (default + 1 if default is not None else 7)
    monkeypatch.setenv(variable(part, name), str(other))

    settings = Settings()

    assert getattr(getattr(settings, part), name) == other


def test_top_level_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KB_REDIS_URL", "redis://cache.example:6380/2")
    monkeypatch.setenv("KB_NAMESPACE", "acme:eu")
    monkeypatch.setenv("KB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("KB_EMBEDDING__BASE_URL", "http://localhost:11434/v1")

    settings = Settings()

    assert settings.redis_url == "redis://cache.example:6380/2"
    assert settings.namespace == "acme:eu"
    assert settings.data_dir == tmp_path
    assert settings.embedding.base_url == "http://localhost:11434/v1"


def test_an_argument_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_NAMESPACE", "from-outside")
    monkeypatch.setenv("KB_TIMEOUTS__REDIS", "1.5")

    settings = Settings(namespace="given", timeouts=Timeouts(redis=0.5))

    assert settings.namespace == "given"
    assert settings.timeouts.redis == 0.5


def test_variables_of_one_part_join_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_TIMEOUTS__REDIS", "0.75")

    timeouts = Settings().timeouts

    assert (timeouts.redis, timeouts.file) == (0.75, 5.0)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "soon", ""])
@pytest.mark.parametrize("name", list(Timeouts.model_fields))
def test_absurd_timeout_is_refused_with_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable("timeouts", name), value)

    with pytest.raises(InvalidInputError, match=variable("timeouts", name)):
        Settings()


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e9, "soon", None])
@pytest.mark.parametrize("name", list(Timeouts.model_fields))
def test_absurd_timeout_argument_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Timeouts(**{name: value})

    assert refused.value.field == name


@pytest.mark.parametrize(("part", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["-1", "1e30", "many"])
def test_absurd_number_is_refused_with_its_variable(
    part: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(part, name), value)

    with pytest.raises(InvalidInputError, match=variable(part, name)):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KB_REDIS_URL", "http://localhost:6379"),
        ("KB_REDIS_URL", "localhost:6379"),
        ("KB_REDIS_URL", "redis://"),
        ("KB_REDIS_URL", "redis://host:0"),
        ("KB_REDIS_URL", "redis://host:99999"),
        ("KB_REDIS_URL", "unix://"),
        ("KB_NAMESPACE", ""),
        ("KB_NAMESPACE", "a b"),
        ("KB_NAMESPACE", "a}b"),
        ("KB_NAMESPACE", "n" * 129),
        ("KB_EMBEDDING__PROVIDER", "telepathy"),
        ("KB_RETRIEVAL__VECTOR_SHARE", "1"),
    ],
)
def test_unusable_value_is_refused_with_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(InvalidInputError, match=name):
        Settings()


def test_refused_url_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_REDIS_URL", "redis://ann:hunter2@host:99999")

    with pytest.raises(InvalidInputError) as refused:
        Settings()

    assert "hunter2" not in f"{refused.value!s} {refused.value!r} {refused.value.__cause__!r}"


def test_malformed_part_is_refused_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_EMBEDDING", '{"api_key": "hunter2"')

    with pytest.raises(InvalidInputError, match="embedding") as refused:
        Settings()

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("part", "name"), [(Settings, "redis"), (Timeouts, "redsi"), (Limits, "topk")])
def test_unknown_setting_is_refused(part: Any, name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        part(**{name: 1})


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.namespace = "other"
    with pytest.raises(ValueError, match="frozen"):
        settings.timeouts.redis = 9.0


@pytest.mark.parametrize("show", [repr, str, lambda settings: f"{settings}", lambda settings: f"{[settings]}"])
def test_repr_shows_no_secret(show: Any) -> None:
    settings = Settings(
        redis_url="redis://ann:hunter2@cache.example:6380/2?password=hunter3",
        embedding=EmbeddingSettings(provider="openai", base_url="http://x/v1", api_key="hunter4"),
    )

    text = show(settings)

    assert "hunter" not in text
    assert "ann" not in text
    assert "cache.example:6380" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pw@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://ann:p%40w@host", "rediss://***@host"),
        ("redis://host?password=pw", "redis://host"),
        ("unix://ann:pw@/run/redis.sock?db=1", "unix://***@/run/redis.sock"),
    ],
)
def test_redacted_url_names_the_server_only(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


@pytest.mark.parametrize(
    "name",
    [
        *("EMBEDDING__MODEL", "EMBEDDING__BASE_URL", "EMBEDDING__API_KEY", "EMBEDDING__DIMENSION"),
        *("EMBEDDING__REQUESTS_PER_MINUTE", "EMBEDDING__TOKENS_PER_MINUTE"),
        *("LLM__MODEL", "LLM__BASE_URL", "LLM__CONTEXT_WINDOW"),
    ],
)
def test_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"KB_{name}", " ")
    part, _, setting = name.lower().partition("__")

    assert getattr(getattr(Settings(), part), setting) is None


def test_prefix_that_is_set_to_nothing_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KB_EMBEDDING__QUERY_PREFIX", "")

    assert Settings().embedding.query_prefix == ""


@pytest.mark.parametrize("part", ["embedding", "llm"])
def test_credentials_in_a_base_url_are_refused_and_not_shown(part: str) -> None:
    with pytest.raises(InvalidInputError, match="api_key") as caught:
        Settings(**{part: {"base_url": "http://ann:hunter2@localhost/v1"}})

    assert "hunter2" not in str(caught.value)
