"""What the server says of its lists of words, in the forms of its versions."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from knowledge_base.errors import PermissionDeniedError
from knowledge_base.index.schema import Generation
from knowledge_base.index.word_frequencies import FRESH_FOR, WordFrequencies

GENERATION = Generation("n", 1, "model", 8)


def one(term: str, *size: Any) -> list[Any]:
    return ["Type", "TEXT", "Term", term, "Time", "0", "Counter", 0, *size]


def profile(*children: list[Any]) -> list[Any]:
    union = ["Type", "UNION", "Query type", "UNION", "Counter", 0, "Child iterators", *children]
    tree = ["Type", "INTERSECT", "Time", "0", "Counter", 0, "Child iterators", None, union]
    return [[0], [["Total profile time", "0"], ["Warning"], ["Iterators profile", tree], ["Result processors profile"]]]


class Server:
    """Plays the manager and its client."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def search(self) -> Server:
        return self

    async def execute_command(self, *arguments: Any) -> Any:
        self.asked.append(arguments[4])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def frequencies(server: Server, clock: Any = lambda: 0.0) -> WordFrequencies:
    return WordFrequencies(server, clock=clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        profile(one("wing", "Size", 7), one("lift", "Size", 3)),
        profile([one("wing", "Estimated number of matches", 7), one("lift", "Estimated number of matches", 3)]),
    ],
)
async def test_lengths_are_found_wherever_they_stand(told: list[Any]) -> None:
    assert await frequencies(Server(told)).of(GENERATION, ["wing", "lift", "absent"]) == {
        "wing": 7,
        "lift": 3,
        "absent": 0,
    }


@pytest.mark.parametrize(
    "answer", [ResponseError("no"), PermissionDeniedError("no"), [[0], []], profile(one("a")), "x"]
)
async def test_server_that_does_not_say_leaves_it_open(answer: Any) -> None:
    assert await frequencies(Server(answer)).of(GENERATION, ["a"]) is None


async def test_only_what_is_not_known_is_asked_for() -> None:
    now = 0.0
    server = Server(profile(one("wing", "Size", 7), one("lift", "Size", 3)))
    asked = frequencies(server, lambda: now)

    await asked.of(GENERATION, ["wing"])
    await asked.of(GENERATION, ["wing", "lift", "lift"])
    await asked.of(GENERATION, ["lift", "wing"])
    now = FRESH_FOR
    await asked.of(GENERATION, ["wing"])

    assert [query.partition(" ")[2] for query in server.asked] == ["@stem:(wing)", "@stem:(lift)", "@stem:(wing)"]
