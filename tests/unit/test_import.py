"""The face of the package: light to import, lean, and exactly what the design names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import knowledge_base
from knowledge_base import errors, settings, types

HEAVY = {
    "aiohttp",
    "fakeredis",
    "httpx",
    "llama_index",
    "numpy",
    "onnxruntime",
    "openai",
    "redis",
    "redisvl",
    "rich",
    "tiktoken",
    "tokenizers",
    "typer",
}
PUBLIC_PARTS = {"KnowledgeBase", "AsyncRedisManager", "get_redis_manager", "Settings"}
NESTED_RESULTS = {"PoolStats", "BreakerStats", "PartHealth"}
MAX_LINES = 60


def loaded_by(code: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", f"import json, sys; {code}; json.dump(sorted(sys.modules), sys.stdout)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(run.stdout))


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import knowledge_base")

    assert "knowledge_base" in loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_making_settings_loads_nothing_heavy() -> None:
    loaded = loaded_by("from knowledge_base import Settings, InvalidInputError; Settings()")

    assert "knowledge_base.settings" in loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


def test_constructing_a_knowledge_base_loads_no_llama_index() -> None:
    loaded = loaded_by("from knowledge_base import KnowledgeBase; KnowledgeBase()")

    assert "knowledge_base.knowledge_base" in loaded
    assert {name for name in loaded if name.split(".")[0] in {"llama_index", "onnxruntime"}} == set()


def expected_names() -> set[str]:
    error_names = {name for name, thing in vars(errors).items() if inspect.isclass(thing)}
    part_names = {part.__name__ for part in settings.SettingsPart.__subclasses__()}
    result_names = {
        name
        for name, thing in vars(types).items()
        if inspect.isclass(thing) and thing.__module__.startswith(types.__name__)
    } - NESTED_RESULTS
    return PUBLIC_PARTS | error_names | part_names | result_names


def test_all_names_exactly_the_public_names() -> None:
    optional = {"__version__", "SearchMode", "OnDuplicate", "Progress", "Metadata", *NESTED_RESULTS}

    assert set(knowledge_base.__all__) - optional == expected_names()


def test_each_public_name_appears_once() -> None:
    assert len(knowledge_base.__all__) == len(set(knowledge_base.__all__))


@pytest.mark.parametrize("name", sorted(expected_names()))
def test_public_name_can_be_had_and_is_listed(name: str) -> None:
    assert getattr(knowledge_base, name).__name__ == name
    assert name in dir(knowledge_base)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = knowledge_base.no_such_thing


def test_star_import_gives_the_public_names() -> None:
    space: dict[str, object] = {}

    exec("from knowledge_base import *", space)

    assert set(knowledge_base.__all__) <= set(space)


def test_the_face_is_under_sixty_lines() -> None:
    assert knowledge_base.__file__ is not None
    lines = Path(knowledge_base.__file__).read_text().splitlines()

    assert len(lines) < MAX_LINES


def test_the_package_says_that_it_is_typed() -> None:
    assert knowledge_base.__file__ is not None

    assert Path(knowledge_base.__file__).with_name("py.typed").exists()
