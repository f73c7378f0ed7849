"""The indices of a namespace: their names, and the commands that create them."""

from __future__ import annotations

from typing import Any

import pytest

from knowledge_base.index.filters import FilterCompiler
from knowledge_base.index.schema import SEPARATOR, TAG_FIELDS, Generation, text_index_command, vector_index_command

GENERATION = Generation("acme", 3, "minilm", 384)


def after(command: list[Any], word: str, count: int = 1) -> list[Any]:
    """What follows a word of a command."""
    place = command.index(word)
    return command[place + 1 : place + 1 + count]


def test_names_carry_the_namespace_as_hash_tag_and_the_generation() -> None:
    assert GENERATION.text_index == "kb:{acme}:index:3"
    assert GENERATION.vector_index == "kb:{acme}:vectors:3"
    assert GENERATION.passage_prefix == "kb:{acme}:passage:3"
    assert GENERATION.section_prefix == "kb:{acme}:section:3"
    assert GENERATION.identity == "minilm/384"


def test_prefix_of_one_generation_does_not_match_another() -> None:
    command = text_index_command(Generation("acme", 1, "m", 4), scan=True)

    (prefix,) = after(command, "PREFIX", 2)[1:]

    assert prefix == "kb:{acme}:section:1:"
    assert not Generation("acme", 11, "m", 4).section_prefix.startswith(prefix)


def test_index_of_words_has_no_analysis_of_the_servers_own() -> None:
    command = text_index_command(GENERATION, scan=True)

    assert command[:7] == ["FT.CREATE", "kb:{acme}:index:3", "ON", "HASH", "PREFIX", 1, "kb:{acme}:section:3:"]
    assert after(command, "STOPWORDS") == [0]
    assert after(command, "stem", 2) == ["TEXT", "NOSTEM"]
    assert after(command, "seq", 2) == ["NUMERIC", "SORTABLE"]
    assert "VECTOR" not in command


def test_index_of_vectors_is_cosine_of_the_models_dimension() -> None:
    command = vector_index_command(GENERATION, scan=True)

    assert command[:7] == ["FT.CREATE", "kb:{acme}:vectors:3", "ON", "HASH", "PREFIX", 1, "kb:{acme}:passage:3:"]
    kind, algorithm, count, *attributes = after(command, "vector", 3 + 12)
    assert (kind, algorithm, count) == ("VECTOR", "HNSW", len(attributes))
    options = dict(zip(attributes[::2], attributes[1::2], strict=True))
    assert (options["TYPE"], options["DIM"], options["DISTANCE_METRIC"]) == ("FLOAT32", 384, "COSINE")
    assert "TEXT" not in command


@pytest.mark.parametrize("make", [text_index_command, vector_index_command])
def test_both_indices_can_be_filtered_alike(make: Any) -> None:
    command = make(GENERATION, scan=True)

    for field in TAG_FIELDS:
        assert after(command, field, 4) == ["TAG", "SEPARATOR", SEPARATOR, "CASESENSITIVE"]
    for field in ("created_at", "updated_at"):
        assert after(command, field) == ["NUMERIC"]


@pytest.mark.parametrize("make", [text_index_command, vector_index_command])
@pytest.mark.parametrize(
    "field", ["tags", "source", "fact_id", "document_id", "metadata.x", "created_at", "updated_at"]
)
def test_every_field_that_filters_name_is_indexed(make: Any, field: str) -> None:
    clause = FilterCompiler(8).clause({field: 1 if field.endswith("_at") else "x"})

    assert clause.removeprefix("@").partition(":")[0] in make(GENERATION, scan=True)


@pytest.mark.parametrize("make", [text_index_command, vector_index_command])
def test_new_index_does_not_look_for_what_is_stored(make: Any) -> None:
    skipping, scanning = make(GENERATION, scan=False), make(GENERATION, scan=True)

    assert [word for word in skipping if word != "SKIPINITIALSCAN"] == scanning
    assert skipping.index("SKIPINITIALSCAN") < skipping.index("SCHEMA")
