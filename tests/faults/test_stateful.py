"""Random sequences of calls and accidents, against a model of what should come of them."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.fact_machine import fact_machine
from tests.support.server import RedisServer

bounded = settings(
    max_examples=10,
    stateful_step_count=40,
    derandomize=True,
    # Accidents take their own time: a sequence that failed may well pass when it is made shorter.
    phases=[Phase.generate],
    print_blob=True,
    report_multiple_bugs=False,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_base_and_model_never_differ(new_server: Any) -> None:
    server: RedisServer = new_server(fsync="always").start()
    steps: list[None] = []

    run_state_machine_as_test(fact_machine(server, lambda: steps.append(None)), settings=bounded)

    assert len(steps) > bounded.max_examples
