"""``LocalModel``: texts to vectors by an ONNX model on this machine, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge_base.embedding.background import UNRELATED, background_similarity
from knowledge_base.embedding.model_files import FIELD, ModelFiles, import_local
from knowledge_base.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

    Floats = NDArray[np.float32]

MAX_BATCH = 8

# Eight texts of full length at once take 800 MB and are no faster than one by one, which takes 290 MB.
MAX_BATCH_TOKENS = 512
ERRORS_ONLY = 3


class LocalModel:
    """An embedding model in this process. Safe to use from several threads; each call keeps one core busy.

    Made by ``load``.

    Attributes:
        identity: Names the vectors: models of one identity make the same ones.
        dimension: Length of the vectors.
        max_tokens: Tokens of a passage that the model reads, its own special tokens and the prefix not counted.
        batch: Texts that it runs at a time.
        background: Cosine similarity of passages that have nothing in common.
        query_prefix: Put before each query.
        passage_prefix: Put before each passage.
    """

    def __init__(self, files: ModelFiles) -> None:
        self.identity = files.identity
        self.query_prefix = files.query_prefix
        self.passage_prefix = files.passage_prefix
        self._pooling = files.pooling
        self.batch = MAX_BATCH if files.batches else 1
        self._numpy = import_local("numpy")
        self._counting, self._cutting = _tokenizers(files)
        self._session = _session(files.graph)
        self._inputs = {one.name for one in self._session.get_inputs()}
        self.max_tokens = files.sequence - len(self._counting.encode(files.passage_prefix).ids)
        if self.max_tokens < 1:
            raise InvalidInputError(FIELD, "its length leaves no room for text")
        self.dimension = self._probe()
        self.background = background_similarity(self.embed_passages(UNRELATED))

    @classmethod
    def load(cls, directory: Path | None = None) -> LocalModel:
        """Loads a model; takes a second or so, so call it in a thread.

        Args:
            directory: Holds ``model.onnx`` (or ``onnx/model.onnx``, ``model_quantized.onnx``), ``tokenizer.json`` and,
                where the defaults do not fit, ``knowledge_base.json`` with any of ``name``, ``pooling`` ("mean" or
                "cls"), ``query_prefix``, ``passage_prefix`` and ``max_tokens`` (special tokens included), or the files
                of sentence-transformers. Without a directory: the model of the extra `local`.

        Raises:
            ServerRequirementError: A package is missing or damaged.
            InvalidInputError: The directory does not hold a usable model.
        """
        return cls(ModelFiles.default() if directory is None else ModelFiles.of(Path(directory)))

    def embed_passages(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a unit vector for each passage, in their order.

        Args:
            texts: The passages; what is beyond ``max_tokens`` is not read.

        Raises:
            InvalidInputError: One is no string, or has lone surrogates.
        """
        return self._embed([self.passage_prefix + _checked(text, "content") for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a unit vector for each query, in their order.

        Args:
            texts: The queries.

        Raises:
            InvalidInputError: One is no string, or has lone surrogates.
        """
        return self._embed([self.query_prefix + _checked(text, "query") for text in texts])

    def tokenize(self, text: str) -> list[int]:
        """Returns the tokens of a text, special ones left out; LlamaIndex's splitters count by it.

        Args:
            text: Of any length.

        Raises:
            InvalidInputError: It is no string, or has lone surrogates.
        """
        ids: list[int] = _encoded(self._counting, _checked(text, "content"), special=False).ids
        return ids

    def count_tokens(self, text: str) -> int:
        """Returns how many tokens a text has, special ones left out.

        Args:
            text: Of any length.

        Raises:
            InvalidInputError: It is no string, or has lone surrogates.
        """
        return len(self.tokenize(text))

    def _probe(self) -> int:
        try:
            return len(self._embed(["probe"])[0])
        except Exception as error:
            raise InvalidInputError(
                FIELD, f"its graph does not run as a text encoder ({type(error).__name__})"
            ) from error

    def _embed(self, texts: list[str]) -> list[list[float]]:
        # One by one: the tokenizer's own batches would take every core.
        encoded = [_encoded(self._cutting, text, special=True) for text in texts]
        vectors: list[list[float]] = [[] for _ in texts]
        for places in _batches([len(one.ids) for one in encoded], self.batch):
            for place, vector in zip(places, self._run([encoded[place] for place in places]).tolist(), strict=True):
                vectors[place] = vector
        return vectors

    def _run(self, batch: list[Encoding]) -> Floats:
        np = self._numpy
        width = max(len(one.ids) for one in batch)
        ids = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        for row, one in enumerate(batch):
            length = len(one.ids)
            ids[row, :length] = one.ids
            types[row, :length] = one.type_ids
            mask[row, :length] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        states = self._session.run(None, {name: feed[name] for name in self._inputs})[0].astype(np.float32)
        pooled = states[:, 0] if self._pooling == "cls" else _mean(states, mask[:, :, None].astype(np.float32))
        unit: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit


def _encoded(tokenizer: Tokenizer, text: str, *, special: bool) -> Encoding:
    # A batch, although of one: only for batches does the tokenizer let other threads run meanwhile.
    return tokenizer.encode_batch([text], add_special_tokens=special)[0]


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Yields the places of texts that are run together, those of like length, shortest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[place] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _mean(states: Floats, mask: Floats) -> Floats:
    mean: Floats = (states * mask).sum(axis=1) / mask.sum(axis=1)
    return mean


def _checked(text: str, field: str) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(field, "must be a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(field, "has lone surrogates, which are no characters") from None
    return text


def _tokenizers(files: ModelFiles) -> tuple[Tokenizer, Tokenizer]:
    """Returns one tokenizer that reads whole texts, and one that stops where the model does."""
    made = import_local("tokenizers").Tokenizer
    try:
        whole, cutting = made.from_str(files.tokenizer), made.from_str(files.tokenizer)
    except Exception as error:
        raise InvalidInputError(FIELD, "its tokenizer.json is not usable") from error
    for tokenizer in (whole, cutting):
        tokenizer.no_padding()
        tokenizer.no_truncation()
    cutting.enable_truncation(max_length=files.sequence)
    return whole, cutting


def _session(graph: Path) -> Any:
    runtime = import_local("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = ERRORS_ONLY
    try:
        return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidInputError(FIELD, f"its graph cannot be loaded ({type(error).__name__})") from error
