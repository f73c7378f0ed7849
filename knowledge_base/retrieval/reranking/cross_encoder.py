"""``CrossEncoder``: reads a query and a passage together and says how well the one answers the other.

A directory with an ONNX graph (``model.onnx``), ``tokenizer.json`` and, where it reads other than 512 tokens,
``tokenizer_config.json``, ``config.json`` or ``knowledge_base.json`` with ``max_tokens``. The graph gives one logit a
pair, or two, for "does not answer" and "answers".
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge_base.embedding.model_files import DYNAMIC_QUANTISATION, GRAPHS, LONGEST_SEQUENCE, USUAL_SEQUENCE
from knowledge_base.errors import InvalidInputError, ServerRequirementError
from knowledge_base.retrieval.reranking.judged import Expired, Judged, Passage, sigmoid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding

    Numbers = NDArray[np.float64]

FIELD = "retrieval.reranker (KB_RETRIEVAL__RERANKER)"
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
OWN_KEYS = {"max_tokens"}

MAX_BATCH = 8
MAX_BATCH_TOKENS = 1_024
"""Pairs that are run together; more are no faster on one core, and are not stopped in time."""

ERRORS_ONLY = 3


class CrossEncoder:
    """A cross-encoder in this process. Safe to use from several threads; each call keeps one core busy.

    Slow to make: in a thread.

    Args:
        directory: Where its files are.

    Raises:
        InvalidInputError: The directory does not hold a usable cross-encoder.
        ServerRequirementError: A package is missing.
    """

    def __init__(self, directory: Path) -> None:
        graph = next((path for name in GRAPHS if (path := directory / name).is_file()), None)
        if graph is None:
            raise InvalidInputError(FIELD, f"no directory with {', '.join(GRAPHS[:-1])} or {GRAPHS[-1]}")
        self._numpy = _imported("numpy")
        try:
            self._batch = 1 if _scales_by_batch(graph) else MAX_BATCH
            self._tokenizer = _tokenizer(directory)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(FIELD, f"cannot be read ({type(error).__name__})") from error
        self._session = _session(graph)
        self._inputs = {one.name for one in self._session.get_inputs()}
        if unknown := sorted(self._inputs - INPUTS):
            raise InvalidInputError(FIELD, f"its graph wants an input {unknown[0]!r} that pairs of texts do not have")
        try:
            self._logits([self._encoded("probe", "probe")])
        except Exception as error:
            raise InvalidInputError(FIELD, f"its graph does not judge pairs of texts ({error})") from error

    def __call__(self, query: str, passages: Sequence[Passage], expired: Expired) -> list[Judged]:
        """Returns all passages with their logits, best first; of equal ones, the one that was first before.

        Args:
            query: What was asked.
            passages: What was found.
            expired: Tells whether nobody waits any more; asked between two batches.

        Raises:
            TimeoutError: Nobody waits any more.
        """
        pairs = [self._encoded(query, passage.text) for passage in passages]
        logits = [0.0] * len(pairs)
        for places in _batches([len(pair.ids) for pair in pairs], self._batch):
            if expired():
                raise TimeoutError("nobody waits for the scores any more")
            found = self._logits([pairs[place] for place in places]).tolist()
            for place, logit in zip(places, found, strict=True):
                logits[place] = logit
        best_first = sorted(range(len(logits)), key=lambda place: -logits[place])
        return [Judged(place, logits[place], sigmoid(logits[place])) for place in best_first]

    def _encoded(self, query: str, text: str) -> Encoding:
        # A batch, although of one: only for batches does the tokenizer let other threads run meanwhile.
        pair: Encoding = self._tokenizer.encode_batch([(query, text)])[0]
        return pair

    def _logits(self, batch: list[Encoding]) -> Numbers:
        np = self._numpy
        width = max(len(one.ids) for one in batch)
        feed = {name: np.zeros((len(batch), width), dtype=np.int64) for name in INPUTS}
        for row, one in enumerate(batch):
            length = len(one.ids)
            feed["input_ids"][row, :length] = one.ids
            feed["token_type_ids"][row, :length] = one.type_ids
            feed["attention_mask"][row, :length] = 1
        output = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        logits = np.asarray(output, dtype=np.float64)
        if logits.ndim == 1 and len(logits) == len(batch):
            logits = logits[:, None]
        if logits.ndim != 2 or len(logits) != len(batch) or logits.shape[1] not in (1, 2):
            raise ValueError(f"it gives numbers of shape {tuple(logits.shape)} for {len(batch)} pairs")
        # Of two classes the sigmoid of their difference is what softmax would give the second.
        one_each: Numbers = logits[:, -1] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return one_each


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Yields the places of pairs that are run together, those of like length, shortest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == most or (len(batch) + 1) * lengths[place] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _tokenizer(directory: Path) -> Any:
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    longest = _longest(directory)
    try:
        tokenizer = _imported("tokenizers").Tokenizer.from_str(text)
        tokenizer.no_padding()
        # Of a long query and a long passage, each keeps its beginning.
        tokenizer.enable_truncation(max_length=longest, strategy="longest_first")
    except (ServerRequirementError, InvalidInputError):
        raise
    except Exception as error:
        raise InvalidInputError(FIELD, "its tokenizer.json is not usable") from error
    return tokenizer


def _longest(directory: Path) -> int:
    own = _object(directory / "knowledge_base.json")
    if unknown := sorted(set(own) - OWN_KEYS):
        raise InvalidInputError(FIELD, f"knowledge_base.json has an unknown key {unknown[0]!r}")
    said = own.get("max_tokens")
    if said is None:
        usual = _object(directory / "tokenizer_config.json").get("model_max_length")
        # Tokenizers without a limit say so by an absurd number.
        said = usual if isinstance(usual, int) and usual <= LONGEST_SEQUENCE else USUAL_SEQUENCE
        positions = _object(directory / "config.json").get("max_position_embeddings")
        said = min(said, positions) if isinstance(positions, int) else said
    if not isinstance(said, int) or isinstance(said, bool) or not 8 <= said <= LONGEST_SEQUENCE:
        raise InvalidInputError(FIELD, f"its length must be a number of tokens from 8 to {LONGEST_SEQUENCE}")
    return said


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInputError(FIELD, f"{path.name} is no JSON") from error
    if not isinstance(found, dict):
        raise InvalidInputError(FIELD, f"{path.name} must hold an object")
    return found


def _scales_by_batch(graph: Path) -> bool:
    """Tells whether a pair's score would depend on those that are run with it."""
    if not graph.stat().st_size:
        return False
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(DYNAMIC_QUANTISATION) >= 0


def _session(graph: Path) -> Any:
    runtime = _imported("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = ERRORS_ONLY
    try:
        return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidInputError(FIELD, f"its graph cannot be loaded ({type(error).__name__})") from error


def _imported(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ServerRequirementError(f"the reranker needs {package}: pip install 'knowledge-base[local]'") from error
