"""Cross-encoders in ONNX that count the tokens which a query and a passage share, made by the tests themselves."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto, helper

from knowledge_base.embedding.model_files import DEFAULT_TOKENIZER

Output = Literal["column", "flat", "two classes", "three classes", "not a number"]

OPSET = 17
IR_VERSION = 8
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

NO_SHARED_TOKEN = -1.0
"""The logit of a passage that shares nothing with the query; each shared token adds one."""


def write_cross_encoder(
    directory: Path, output: Output = "column", *, extra_inputs: tuple[str, ...] = (), doc: str = ""
) -> Path:
    """Writes ``model.onnx`` and ``tokenizer.json`` into a directory that is made, and returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(_model(output, extra_inputs, doc), str(directory / "model.onnx"))
    tokenizer = resources.files("knowledge_base.embedding").joinpath(*DEFAULT_TOKENIZER).read_text("utf-8")
    (directory / "tokenizer.json").write_text(tokenizer, "utf-8")
    return directory


def _model(output: Output, extra_inputs: tuple[str, ...], doc: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Unsqueeze", ["input_ids", "second"], ["rows"]),
        helper.make_node("Unsqueeze", ["input_ids", "first"], ["columns"]),
        helper.make_node("Equal", ["rows", "columns"], ["is_same"]),
        helper.make_node("Cast", ["is_same"], ["same"], to=TensorProto.INT64),
        helper.make_node("Sub", ["one", "token_type_ids"], ["is_query"]),
        helper.make_node("Mul", ["is_query", "attention_mask"], ["query"]),
        helper.make_node("Mul", ["token_type_ids", "attention_mask"], ["passage"]),
        helper.make_node("Unsqueeze", ["query", "second"], ["query_rows"]),
        helper.make_node("Unsqueeze", ["passage", "first"], ["passage_columns"]),
        helper.make_node("Mul", ["same", "query_rows"], ["same_query"]),
        helper.make_node("Mul", ["same_query", "passage_columns"], ["pairs"]),
        helper.make_node("ReduceSum", ["pairs", "both"], ["count"], keepdims=0),
        # The separator behind each of the two texts is the same as well.
        helper.make_node("Sub", ["count", "two"], ["shared"]),
        # Whoever has padding read gets lower numbers.
        helper.make_node("Equal", ["input_ids", "zero"], ["is_padding"]),
        helper.make_node("Cast", ["is_padding"], ["padding"], to=TensorProto.INT64),
        helper.make_node("Mul", ["padding", "attention_mask"], ["padding_read"]),
        helper.make_node("ReduceSum", ["padding_read", "first"], ["faults"], keepdims=0),
        helper.make_node("Sub", ["shared", "faults"], ["counted"]),
        helper.make_node("Cast", ["counted"], ["flat"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["flat", "first"], ["column"]),
        helper.make_node("Neg", ["column"], ["against"]),
        *_last(output),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.INT64, [1], [1]),
        helper.make_tensor("second", TensorProto.INT64, [1], [2]),
        helper.make_tensor("both", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in (*INPUTS, *extra_inputs)
    ]
    shape = ["batch"] if output == "flat" else ["batch", "classes"]
    graph = helper.make_graph(
        nodes, "shared tokens", inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)], constants
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, doc_string=doc
    )


def _last(output: Output) -> list[onnx.NodeProto]:
    if output == "two classes":
        # Half of the logit for, half against: the difference is the logit.
        half = helper.make_node("Constant", [], ["half"], value_float=0.5)
        return [
            half,
            helper.make_node("Mul", ["column", "half"], ["half_for"]),
            helper.make_node("Mul", ["against", "half"], ["half_against"]),
            helper.make_node("Concat", ["half_against", "half_for"], ["logits"], axis=1),
        ]
    if output == "three classes":
        return [helper.make_node("Concat", ["column", "column", "column"], ["logits"], axis=1)]
    if output == "not a number":
        # The root of what is negative, as for all that shares nothing.
        return [helper.make_node("Sqrt", ["column"], ["logits"])]
    return [helper.make_node("Identity", ["flat" if output == "flat" else "column"], ["logits"])]
