"""Cross-encoders in ONNX directories: what they say, whatever stands beside a pair, and what is refused."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowledge_base.errors import InvalidInputError, ServerRequirementError
from knowledge_base.retrieval.reranking import cross_encoder
from knowledge_base.retrieval.reranking.cross_encoder import FIELD, MAX_BATCH, CrossEncoder
from knowledge_base.retrieval.reranking.judged import Judged, Passage, calibrated, sigmoid
from tests.support.cross_encoders import NO_SHARED_TOKEN, Output, write_cross_encoder

TEXTS = ["a red kite", "blue kite over the sea", "green hills", "the blue sea", ""]


def passages(*texts: str) -> list[Passage]:
    return [Passage(f"n{place}", "fact", text, {}, 0.5) for place, text in enumerate(texts)]


def never() -> bool:
    return False


def judged(model: CrossEncoder, query: str, *texts: str) -> list[Judged]:
    return model(query, passages(*texts), never)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return CrossEncoder(write_cross_encoder(tmp_path_factory.mktemp("reranker")))


def test_passage_that_answers_comes_first_with_its_logit(model: CrossEncoder) -> None:
    found = judged(model, "blue kite sea", *TEXTS)

    assert [one.place for one in found] == [1, 3, 0, 2, 4]
    assert [one.raw for one in found] == [NO_SHARED_TOKEN + shared for shared in (3, 2, 1, 0, 0)]


def test_score_is_the_sigmoid_of_the_logit_also_where_that_is_between_0_and_1(model: CrossEncoder) -> None:
    (found,) = judged(model, "blue sea", "the blue sea")

    assert (found.raw, found.score) == (1.0, sigmoid(1.0))


def test_equal_passages_keep_their_order(model: CrossEncoder) -> None:
    assert [one.place for one in judged(model, "moon", *TEXTS)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("output", ["flat", "two classes"])
def test_other_shapes_of_the_output_say_the_same(model: CrossEncoder, tmp_path: Path, output: Output) -> None:
    other = CrossEncoder(write_cross_encoder(tmp_path, output))

    assert judged(other, "blue kite sea", *TEXTS) == judged(model, "blue kite sea", *TEXTS)


def test_score_does_not_depend_on_the_pairs_beside_it(model: CrossEncoder) -> None:
    texts = [f"kite {'word ' * (number * 7 % 90)} sea" for number in range(3 * MAX_BATCH)]

    together = sorted(judged(model, "kite sea", *texts))
    alone = [judged(model, "kite sea", text)[0].raw for text in texts]

    assert [one.raw for one in together] == alone


def test_text_beyond_the_length_is_not_read(tmp_path: Path) -> None:
    directory = write_cross_encoder(tmp_path)
    (directory / "knowledge_base.json").write_text('{"max_tokens": 16}')

    found = judged(CrossEncoder(directory), "kite", "word " * 50 + "kite", "kite " + "word " * 50)

    assert [(one.place, one.raw) for one in found] == [(1, NO_SHARED_TOKEN + 1), (0, NO_SHARED_TOKEN)]


def test_query_and_passage_of_any_length_are_read_together(model: CrossEncoder) -> None:
    (found,) = judged(model, "kite " * 3_000, "sea " * 3_000)

    assert found.raw == NO_SHARED_TOKEN


def test_length_is_what_the_positions_allow(tmp_path: Path) -> None:
    directory = write_cross_encoder(tmp_path)
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    (directory / "config.json").write_text('{"max_position_embeddings": 16}')

    assert judged(CrossEncoder(directory), "kite", "word " * 50 + "kite")[0].raw == NO_SHARED_TOKEN


def test_pairs_of_a_graph_that_scales_by_the_batch_run_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CrossEncoder(write_cross_encoder(tmp_path, doc="DynamicQuantizeLinear"))
    sizes: list[int] = []
    logits = model._logits

    def watched(batch: list[Any]) -> Any:
        sizes.append(len(batch))
        return logits(batch)

    monkeypatch.setattr(model, "_logits", watched)

    judged(model, "kite", *TEXTS)

    assert sizes == [1] * len(TEXTS)


def test_work_stops_between_batches_when_nobody_waits(model: CrossEncoder) -> None:
    asked: list[bool] = []

    def after_two() -> bool:
        asked.append(len(asked) >= 2)
        return asked[-1]

    with pytest.raises(TimeoutError):
        model("kite", passages(*["kite"] * (4 * MAX_BATCH)), after_two)

    assert asked == [False, False, True]


def write(name: str, content: object) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda directory: (directory / "model.onnx").unlink(), "no directory with model.onnx"),
        (lambda directory: (directory / "model.onnx").write_bytes(b""), "cannot be loaded"),
        (lambda directory: (directory / "model.onnx").write_bytes(b"nonsense"), "cannot be loaded"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "cannot be read"),
        (lambda directory: (directory / "tokenizer.json").write_bytes(b"\xff\xfe"), "cannot be read"),
        (write("tokenizer.json", {"model": 1}), "tokenizer.json is not usable"),
        (write("knowledge_base.json", {"pooling": "cls"}), "unknown key 'pooling'"),
        (write("knowledge_base.json", {"max_tokens": "many"}), "number of tokens"),
        (write("knowledge_base.json", {"max_tokens": 2}), "number of tokens"),
        (write("config.json", []), "config.json must hold an object"),
        (lambda directory: (directory / "config.json").write_text("{"), "config.json is no JSON"),
        (lambda directory: write_cross_encoder(directory, "three classes"), "does not judge pairs"),
        (lambda directory: write_cross_encoder(directory, extra_inputs=("pixels",)), "'pixels'"),
    ],
)
def test_directory_that_is_none_is_refused_by_its_setting(
    tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    damage(write_cross_encoder(tmp_path))

    with pytest.raises(InvalidInputError) as refused:
        CrossEncoder(tmp_path)

    assert refused.value.field == FIELD
    assert said in refused.value.problem


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "numpy"])
def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    write_cross_encoder(tmp_path)
    found = importlib.import_module

    def without(name: str) -> Any:
        if name == package:
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(cross_encoder, "import_module", without)

    with pytest.raises(ServerRequirementError, match=package):
        CrossEncoder(tmp_path)


def test_sigmoid_is_a_probability_for_any_logit() -> None:
    assert [sigmoid(logit) for logit in (-1e4, 0.0, 1e4)] == [0.0, 0.5, 1.0]
    assert sigmoid(2.0) == pytest.approx(0.880797, abs=1e-6)
    assert sigmoid(-2.0) == pytest.approx(1 - sigmoid(2.0))


def test_scores_between_0_and_1_are_taken_as_they_are_and_others_for_logits() -> None:
    assert calibrated([0.9, 0.0, 1.0]) == [0.9, 0.0, 1.0]
    assert calibrated([0.9, -0.1]) == [sigmoid(0.9), sigmoid(-0.1)]
    assert calibrated([]) == []
