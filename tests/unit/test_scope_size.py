"""How the nearest passages are found best, by how many pass the filter."""

from __future__ import annotations

import pytest

from knowledge_base.index.scope_size import (
    COMPARED_AT_MOST,
    COMPARED_AT_ONCE,
    ScopeSize,
    knn_attributes,
)


@pytest.mark.parametrize(
    ("size", "top_k", "attributes"),
    [
        (None, 10, ""),
        (ScopeSize(0), 10, "HYBRID_POLICY ADHOC_BF"),
        (ScopeSize(COMPARED_AT_ONCE), 10, "HYBRID_POLICY ADHOC_BF"),
        (ScopeSize(COMPARED_AT_MOST + 1), 10, "HYBRID_POLICY BATCHES"),
        (ScopeSize(10_000, 50_001), 10, "HYBRID_POLICY ADHOC_BF"),
        (ScopeSize(10_000, 20_001), 10, "HYBRID_POLICY ADHOC_BF"),
        (ScopeSize(10_000, 10_000), 10, "HYBRID_POLICY BATCHES BATCH_SIZE 10"),
        (ScopeSize(10_000, 20_000), 100, "HYBRID_POLICY BATCHES BATCH_SIZE 230"),
        # The two counts were made one after the other.
        (ScopeSize(10_000, 9_990), 10, "HYBRID_POLICY BATCHES BATCH_SIZE 10"),
    ],
)
def test_few_passages_are_compared_and_many_walked_to(size: ScopeSize | None, top_k: int, attributes: str) -> None:
    assert knn_attributes(size, top_k) == attributes
