"""Facts and documents in several languages, found by words of each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from knowledge_base.errors import InvalidInputError
from knowledge_base.index.namespace_languages import FRESH_FOR
from knowledge_base.keyspace import Keyspace
from knowledge_base.settings import Settings
from tests.support.facts import found
from tests.support.polling import eventually

if TYPE_CHECKING:
    from knowledge_base import KnowledgeBase
    from tests.conftest import OpenKnowledgeBase
    from tests.support.control import Control
    from tests.support.embeddings import StubEmbedding


FACTS = {
    "en": "The cities of the north were built by merchants, and they are still lived in.",
    "de": "Die Häuser der Altstadt wurden von den Kaufleuten gebaut und sind noch bewohnt.",
    "fr": "Les journaux de la ville ont été imprimés ici, et ils sont encore dans les archives.",
    "es": "Las casas de la ciudad fueron construidas por los comerciantes y todavía están habitadas.",
    "it": "Le torri della città furono costruite dai mercanti e sono ancora abitate.",
    "pt": "As igrejas da cidade foram restauradas pelos comerciantes e ainda são visitadas.",
    "nl": "De boeken van de oude stad zijn door de kooplieden geschreven en worden nog gelezen.",
    "ru": "Дома старого города были построены купцами, и в них до сих пор живут.",
}

FORMS = {
    "en": "city",
    "de": "das Haus",
    "fr": "le journal",
    "es": "el barrio construido",
    "it": "il ponte costruito",
    "pt": "o palácio restaurado",
    "nl": "het boek",
    "ru": "дом",
}
"""Queries whose words stand in the facts in other forms, which an English stemmer does not know but for the first."""

GERMAN = [
    "Die Brücken über den Fluss wurden im letzten Jahr neu gestrichen, und der Verkehr wurde umgeleitet.",
    "Der Zug nach Süden fährt nicht an den Feiertagen, aber die Busse fahren immer.",
    "Wer die Schlüssel verliert, muss sie beim Pförtner bezahlen.",
]


def counted(control: Control, namespace: str) -> dict[str, int]:
    reply = control.run("HGETALL", Keyspace(namespace).languages)
    return {name.decode(): int(count) for name, count in reply.items()}


async def store_all(kb: KnowledgeBase, facts: dict[str, str] = FACTS) -> None:
    stored = await kb.store_facts({"content": text, "fact_id": name} for name, text in facts.items())
    assert stored["succeeded"] == len(facts)


@pytest.fixture
async def kb(open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding) -> KnowledgeBase:
    return open_kb(stub_embedding)


@pytest.mark.parametrize("language", FACTS)
async def test_other_forms_of_words_find_what_is_written_in_each_language(
    kb: KnowledgeBase, namespace: str, language: str
) -> None:
    await store_all(kb)

    assert (await found(kb, FORMS[language], mode="text"))[0] == language


async def test_sections_are_counted_by_language(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await store_all(kb)
    await kb.store_fact("Also in English, and there is not more to it than that.", fact_id="more")

    counts = counted(control, namespace)

    names = ["english", "german", "french", "spanish", "italian", "portuguese", "dutch", "russian"]
    assert counts == dict.fromkeys(names, 1) | {"english": 2}


async def test_english_base_has_nothing_but_english_stems(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")

    (key,) = (key for key in control.keys(namespace) if key.startswith(Keyspace(namespace).sections(1)))

    expected = "the citi of the north were built by merchant and they are still live in"
    assert control.run("HGET", key, "stem").decode() == expected
    assert counted(control, namespace) == {"english": 1}


async def test_short_fact_is_taken_for_the_language_of_the_others(kb: KnowledgeBase, namespace: str) -> None:
    await kb.store_facts({"content": text} for text in GERMAN)

    await kb.store_fact("Gästehäuser", fact_id="short")

    assert await found(kb, "Gästehaus", mode="text") == ["short"]


async def test_short_facts_and_sections_are_taken_for_the_language_of_what_they_come_with(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")

    await kb.store_facts([*({"content": text} for text in GERMAN), {"content": "Gästehäuser", "fact_id": "short"}])
    numbers = "\n\n".join(f"Zimmer {n}, Bettenhäuser {n}" for n in range(400))
    await kb.add_document(f"# Belegung\n\n{' '.join(GERMAN)}\n\n{numbers}", document_id="list")

    assert await found(kb, "Gästehaus", mode="text") == ["short"]
    assert await found(kb, "Bettenhaus", mode="text") == ["list"]
    assert counted(control, namespace)["english"] == 1


async def test_language_that_comes_later_is_searched_at_once_beside_those_from_before(
    kb: KnowledgeBase, namespace: str
) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")
    assert await found(kb, "city", mode="text") == ["en"]

    await kb.store_fact(FACTS["de"], fact_id="de")

    assert await found(kb, "das Haus", mode="text") == ["de"]
    assert await found(kb, "city", mode="text") == ["en"]


async def test_another_process_learns_of_a_new_language_within_seconds(
    kb: KnowledgeBase, open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding, namespace: str
) -> None:
    other = open_kb(stub_embedding)
    await kb.store_fact(FACTS["en"], fact_id="en")
    assert await found(other, "city", mode="text") == ["en"]

    await kb.store_fact(FACTS["de"], fact_id="de")

    async def has_learned() -> bool:
        return await found(other, "das Haus", mode="text") == ["de"]

    await eventually(has_learned, FRESH_FOR + 3)


async def test_sections_of_before_they_were_counted_are_english(
    kb: KnowledgeBase, open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding, namespace: str, control: Control
) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")
    await kb.store_fact("There were three more cities, but they are gone.", fact_id="gone")
    control.run("DEL", Keyspace(namespace).languages)
    later = open_kb(stub_embedding)
    assert await found(later, "city", mode="text") == ["gone", "en"]

    await later.store_fact(FACTS["de"], fact_id="de")

    assert counted(control, namespace) == {"english": 2, "german": 1}
    assert set(await found(later, "city", mode="text")) == {"gone", "en"}


async def test_update_is_stemmed_in_its_new_language(kb: KnowledgeBase, namespace: str) -> None:
    await kb.store_fact(FACTS["en"], fact_id="one")

    await kb.update_fact("one", content=FACTS["de"])

    assert await found(kb, "Haus", mode="text") == ["one"]
    assert await found(kb, "city", mode="text") == []


async def test_each_section_of_a_document_has_its_own_language(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    text = "\n\n".join(
        [*[f"# Kapitel {n}\n\n" + " ".join(GERMAN * 20) for n in range(4)], "# Chapter\n\n" + FACTS["en"] * 80]
    )
    await kb.add_document(text, document_id="both")

    assert set(counted(control, namespace)) == {"german", "english"}
    hits = (await kb.search("die Brücke", mode="text"))["hits"]
    assert "Brücken" in hits[0]["content"]
    hits = (await kb.search("merchant", mode="text"))["hits"]
    assert "merchants" in hits[0]["content"]


async def test_passage_with_the_words_is_shown_in_whichever_language(kb: KnowledgeBase, namespace: str) -> None:
    filling = "Und so weiter, wie es auch sonst immer wieder gewesen ist und noch sein wird. " * 25
    await kb.store_fact(filling + " Das Haus steht am Fluss. " + filling, fact_id="long")

    hit = (await kb.search("Häuser an den Flüssen", mode="text"))["hits"][0]

    assert "Haus steht am Fluss" in hit["content"]


async def test_told_language_is_that_of_everything(
    open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding, namespace: str, control: Control
) -> None:
    kb = open_kb(stub_embedding, language="finnish")

    await kb.store_fact("Talossa on kolme huonetta.", fact_id="fi")

    assert counted(control, namespace) == {"finnish": 1}
    assert await found(kb, "talossani", mode="text") == ["fi"]


async def test_reindex_stems_anew_what_was_stemmed_in_another_language(
    open_kb: OpenKnowledgeBase, stub_embedding: StubEmbedding, namespace: str, control: Control
) -> None:
    before = open_kb(stub_embedding, language="english")
    await store_all(before, {f"de{n}": text for n, text in enumerate(GERMAN)})
    await before.add_document("# Brücken\n\n" + " ".join(GERMAN), document_id="doc")
    assert await found(before, "Schlüsseln", mode="text") == []
    after = open_kb(stub_embedding, language="german")

    await after.rebuild_search_index()

    assert set(await found(after, "Schlüsseln", mode="text")) == {"de2", "doc"}
    assert counted(control, namespace) == {"german": 4}
    assert (await after.check_integrity())["findings"] == {}


async def test_rebuild_forgets_a_language_that_nothing_is_in(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    await store_all(kb)
    for name in FACTS.keys() - {"en", "de"}:
        await kb.delete_fact(name)

    await kb.rebuild_search_index()

    assert counted(control, namespace) == {"english": 1, "german": 1}
    assert (await found(kb, FORMS["de"], mode="text")) == ["de"]


async def test_copied_namespace_has_the_languages_of_its_source(
    kb: KnowledgeBase, namespace: str, control: Control
) -> None:
    await store_all(kb)
    target = f"{namespace}-copy"

    try:
        await kb.copy_namespace(namespace, target)

        assert counted(control, target) == counted(control, namespace)
        assert (await found(kb, FORMS["ru"], mode="text", namespace=target))[0] == "ru"
    finally:
        await kb.drop_namespace(target, confirm=target)
    assert counted(control, target) == {}


async def test_imported_facts_are_stemmed_in_their_language(kb: KnowledgeBase, namespace: str, tmp_path: Path) -> None:
    await store_all(kb)
    await kb.export_all_data(tmp_path / "all.jsonl", namespace=namespace)
    for name in FACTS:
        await kb.delete_fact(name)

    await kb.import_data(tmp_path / "all.jsonl", namespace=namespace)

    for name, query in FORMS.items():
        assert (await found(kb, query, mode="text"))[0] == name


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("한국어를 배우는 학생들이 도서관에서 공부한다.", "한국어 도서관"),
        ("東京都の図書館は月曜日に休みです。", "図書館"),
        ("北京的图书馆星期一不开门。", "图书馆"),
    ],
)
async def test_words_without_spaces_or_with_particles_are_found(
    kb: KnowledgeBase, namespace: str, stored: str, query: str
) -> None:
    await kb.store_fact(stored, fact_id="found")
    await kb.store_fact("다른 이야기 別の話 别的事情", fact_id="other")

    assert await found(kb, query, mode="text") == ["found"]


async def test_minority_does_not_take_the_words_of_the_majority(kb: KnowledgeBase, namespace: str) -> None:
    for n in range(30):
        await kb.store_fact(f"Les fichiers du dossier {n} ne sont pas dans la liste des archives.", fact_id=f"fr{n}")
    await kb.store_fact("This is what the word fichier is in the list of all the words that are there.", fact_id="en")

    ranked = await found(kb, "les fichiers du dossier 7", mode="text")

    assert ranked[0] == "fr7"
    assert "en" not in ranked


def management() -> list[dict[str, str | list[str]]]:
    english = "The management of the company has the information about its customers in report"
    german = "Das Management der Firma hat die Information über ihre Kunden in dem Bericht"
    facts = [(f"en{n}", f"{english} {n}", "en") for n in range(60)]
    facts += [(f"de{n}", f"{german} {n}", "de") for n in (1, 2)]
    return [{"fact_id": name, "content": text, "tags": [tag]} for name, text, tag in facts]


@pytest.mark.parametrize("query", ["management", "the management", "information management", "the information"])
async def test_word_as_it_stands_in_a_rare_language_is_found(kb: KnowledgeBase, namespace: str, query: str) -> None:
    await kb.store_facts(management())

    filtered = await found(kb, query, mode="text", filters={"tags": ["de"]})
    everything = (await kb.search(query, mode="text", top_k=100))["hits"]

    assert set(filtered) == {"de1", "de2"}
    assert len(everything) == 62
    assert [hit["score"] for hit in everything] == sorted((hit["score"] for hit in everything), reverse=True)


async def test_fact_of_a_rare_language_has_its_words_in_hybrid_search_too(kb: KnowledgeBase, namespace: str) -> None:
    await kb.store_facts(management())

    hits = (await kb.search("the management", filters={"tags": ["de"]}))["hits"]

    assert ["text" in hit["scores"] for hit in hits] == [True, True]


async def test_counts_follow_updates_and_deletes(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await store_all(kb, {"en": FACTS["en"], "de": FACTS["de"], "fr": FACTS["fr"]})

    for n in range(5):
        await kb.update_fact("de", content=f"{FACTS['de']} Es waren {n}.")
    assert counted(control, namespace) == {"english": 1, "german": 1, "french": 1}
    await kb.update_fact("fr", content=FACTS["es"])
    assert counted(control, namespace) == {"english": 1, "german": 1, "spanish": 1}
    await kb.update_fact("fr", tags=["sea"])
    await kb.delete_fact("de")
    assert counted(control, namespace) == {"english": 1, "spanish": 1}
    await kb.delete_fact("en")
    await kb.delete_fact("fr")
    assert counted(control, namespace) == {}


async def test_counts_follow_documents(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")
    text = "\n\n".join(f"# Kapitel {n}\n\n" + " ".join(GERMAN * 20) for n in range(4))

    await kb.add_document(text, document_id="doc")
    assert counted(control, namespace)["german"] > 1
    await kb.add_document(text + "\n\nDas ist alles, was es dazu noch zu sagen gibt.", document_id="doc")

    sections = [key for key in control.keys(namespace) if key.startswith(Keyspace(namespace).sections(1))]
    assert counted(control, namespace) == {"english": 1, "german": len(sections) - 1}
    await kb.delete_document("doc")
    assert counted(control, namespace) == {"english": 1}


async def test_counts_follow_facts_that_expire(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await kb.store_fact(FACTS["en"], fact_id="en")
    await kb.store_fact(FACTS["de"], fact_id="de", expires_in=1)
    assert counted(control, namespace) == {"english": 1, "german": 1}

    await asyncio.sleep(1.1)
    # What has expired is removed by the next one that meets it.
    await kb.store_fact(FACTS["fr"], fact_id="de")

    assert counted(control, namespace) == {"english": 1, "french": 1}


async def test_counts_never_fall_below_what_was_counted(kb: KnowledgeBase, namespace: str, control: Control) -> None:
    await store_all(kb, {"en": FACTS["en"], "de": FACTS["de"]})
    control.run("DEL", Keyspace(namespace).languages)

    await kb.delete_fact("de")

    assert counted(control, namespace) == {}


@pytest.mark.parametrize("how", ["edited", "deleted"])
async def test_main_language_follows_what_is_there(kb: KnowledgeBase, namespace: str, how: str) -> None:
    await store_all(kb, {f"en{n}": f"{FACTS['en']} There were {n} of them." for n in range(3)})
    if how == "edited":
        await kb.store_fact(GERMAN[0], fact_id="de")
        for n in range(5):
            await kb.update_fact("de", content=f"{GERMAN[n % 3]} Es waren {n}.")
    else:
        await store_all(kb, {f"de{n}": f"{FACTS['de']} Es waren {n}." for n in range(6)})
        for n in range(6):
            await kb.delete_fact(f"de{n}")
    await asyncio.sleep(FRESH_FOR + 0.1)

    await kb.store_fact("leather shoes", fact_id="shoes")

    assert await found(kb, "shoe", mode="text") == ["shoes"]


@pytest.mark.parametrize("value", ["klingon", "German", ""])
def test_unknown_language_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="german") as caught:
        Settings(language=value)

    assert "KB_LANGUAGE" in str(caught.value)


def test_language_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().language == "auto"
    monkeypatch.setenv("KB_LANGUAGE", "dutch")
    assert Settings().language == "dutch"
