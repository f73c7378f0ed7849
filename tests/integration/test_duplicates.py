"""Near duplicates are found by their vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knowledge_base.errors import InvalidInputError
from tests.support.control import Control

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.support.embeddings import StubEmbedding

PENGUINS = [
    "Emperor penguins breed during the Antarctic winter and the males keep the eggs warm on their feet.",
    "Emperor penguins breed in the Antarctic winter, and the males keep the egg warm on their feet.",
    "The Emperor penguin breeds during the Antarctic winter; males keep the eggs warm on their feet.",
]
OTHERS = [
    "The treaty of 1648 ended thirty years of war in central Europe.",
    "A compiler translates source code into machine code before the program runs.",
    "Sourdough bread rises slowly because wild yeast works slowly.",
    "Penguins of another kind, the gentoos, swim faster than any other bird.",
]


def groups_of(report: Any) -> list[set[str]]:
    return [{fact["id"] for fact in group["facts"]} for group in report["groups"]]


async def test_real_texts_that_say_the_same_are_one_group(kb: KnowledgeBase) -> None:
    await kb.store_facts({"content": text, "fact_id": f"p{at}"} for at, text in enumerate(PENGUINS))
    await kb.store_facts({"content": text, "fact_id": f"o{at}"} for at, text in enumerate(OTHERS))
    progress: list[tuple[int, int]] = []

    report = await kb.find_duplicates(0.9, progress=lambda *seen: progress.append(seen))

    assert groups_of(report) == [{"p0", "p1", "p2"}]
    group = report["groups"][0]
    assert (group["facts"][0]["id"], group["facts"][0]["similarity"]) == ("p0", 1.0)
    assert 0.9 <= group["similarity"] == group["facts"][2]["similarity"] <= group["facts"][1]["similarity"] < 1.0
    assert (report["facts"], report["duplicates"], report["completed"]) == (7, 2, True)
    assert progress[-1] == (7, 7)


async def test_content_is_not_in_the_report(kb: KnowledgeBase) -> None:
    await kb.store_facts({"content": text} for text in PENGUINS)

    report = await kb.find_duplicates(0.9)

    assert report["duplicates"] == 2
    assert "penguin" not in str(report).lower()


async def test_each_fact_is_in_one_group(stub_kb: KnowledgeBase) -> None:
    for kind in ("alpha beta gamma delta", "one two three four five", "red green blue white"):
        await stub_kb.store_facts(
            {"content": kind + "!" * marks, "fact_id": f"{kind[0]}{marks}"} for marks in range(40)
        )
    await stub_kb.store_fact("nothing like any of them", fact_id="alone")

    report = await stub_kb.find_duplicates(0.999)

    named = [fact["id"] for group in report["groups"] for fact in group["facts"]]
    assert groups_of(report) == [{f"{kind}{marks}" for marks in range(40)} for kind in "aor"]
    assert len(named) == len(set(named))
    assert report["duplicates"] == 3 * 39


async def test_facts_of_all_principals_are_compared(stub_kb: KnowledgeBase) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="a", principals=["user:ann"])
    await stub_kb.store_fact("penguins swim", fact_id="b", principals=["user:bob"])
    await stub_kb.store_fact("penguins swim", fact_id="c")

    assert groups_of(await stub_kb.find_duplicates()) == [{"a", "b", "c"}]


async def test_long_facts_are_compared_as_a_whole(stub_kb: KnowledgeBase) -> None:
    sentences = [f"Topic{n} word{n} thing{n} place{n} people{n} number{n} say so." for n in range(120)]
    whole = "\n\n".join(sentences)
    await stub_kb.store_fact(whole, fact_id="whole")
    await stub_kb.store_fact(whole + "\n\nA last word.", fact_id="copy")
    begun = "\n\n".join([*sentences[:40], *(f"Other{n} strange{n} far{n} unlike{n}." for n in range(160))])
    await stub_kb.store_fact(begun, fact_id="begun alike".replace(" ", "-"))

    report = await stub_kb.find_duplicates(0.9)

    assert (await stub_kb.get_stats())["passages"] > 9
    assert groups_of(report) == [{"whole", "copy"}]


async def test_filter_and_limit_are_kept(stub_kb: KnowledgeBase) -> None:
    for kind in ("alpha beta gamma", "one two three", "red green blue"):
        for marks in range(3):
            await stub_kb.store_fact(kind + "!" * marks, fact_id=f"{kind[0]}{marks}", tags=[kind[0], f"m{marks}"])

    only_some = await stub_kb.find_duplicates(filters={"tags": ["m0", "m1"]})
    first = await stub_kb.find_duplicates(limit=2)

    assert groups_of(only_some) == [{f"{kind}0", f"{kind}1"} for kind in "aor"]
    assert (only_some["facts"], only_some["completed"]) == (6, True)
    assert groups_of(first) == [{f"{kind}{marks}" for marks in range(3)} for kind in "ao"]
    assert first["completed"] is False


async def test_facts_without_vectors_are_counted_apart(stub_kb: KnowledgeBase, stub_embedding: StubEmbedding) -> None:
    await stub_kb.store_fact("penguins swim", fact_id="a", principals=["user:ann"])
    stub_embedding.become("failing")
    await stub_kb.store_fact("penguins swim", fact_id="b", wait_indexed=False)

    report = await stub_kb.find_duplicates()

    assert (report["facts"], report["not_compared"], report["groups"]) == (1, 1, [])


async def test_search_takes_no_more_queries_than_facts(stub_kb: KnowledgeBase, control: Control) -> None:
    await stub_kb.store_facts({"content": f"w{n} x{n * 7} y{n * 13} z{n * 29}"} for n in range(300))
    before = control.calls("FT.SEARCH")

    report = await stub_kb.find_duplicates(0.99)

    assert report["facts"] == 300
    assert control.calls("FT.SEARCH") - before <= 310


async def test_empty_namespace_has_none(stub_kb: KnowledgeBase) -> None:
    report = await stub_kb.find_duplicates()

    assert (report["facts"], report["groups"], report["completed"]) == (0, [], True)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": 0.2}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": "0.9"}, "threshold"),
        ({"limit": 0}, "limit"),
        ({"filters": {"no": "field"}}, "filters"),
        ({"namespace": "*"}, "namespace"),
    ],
)
async def test_bad_arguments_are_refused(stub_kb: KnowledgeBase, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await stub_kb.find_duplicates(**arguments)

    assert refused.value.field == field
