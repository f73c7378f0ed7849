"""Which language a text is in, by its function words, the endings of the others, and its letters.

The words are split for stemming anyway, so that a guess costs some microseconds. A model that has learned from texts
was tried (py3langid 0.4): it is no better on whole texts and worse on short ones once the most likely language is
known, takes 77 MB and 0.6 s in every process, and cannot be installed beside the vector store on Python 3.11.
``docs/explanation/languages.md`` has the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from knowledge_base.index import stop_words

ENGLISH = "english"


LOOKED_AT = 400
"""Words of a long text that are looked at, evenly spread."""

LEAD = 1.5
"""By how much another language has to be ahead of the most likely one: one function word is not enough."""

LEAD_OF_QUERY = 0.5
"""By how much in a query, which has few words, and languages to choose from that are known to be there."""

SHARE = 1.3
"""How many times as much it needs besides."""

SINGLE_LETTER = 0.25
"""For function words of one letter, which are also names of variables, of sections, of people; others count 1."""

ENDING = 0.4
SHORT_ENDING = 0.2
"""For endings of two letters."""

OWN_LETTERS = 0.3
FOREIGN_LETTERS = -0.6
"""For words whose letters beyond ASCII are, or are not, all of them the language's own."""

OF_ANOTHER_SCRIPT = frozenset({"russian"})
"""Languages whose letters none of the others has."""

OWN_SCRIPT = 0.6
"""For their words."""

MOST_WEAK = 0.7
"""What all endings and letters of a text count for at most, for or against: without function words they decide little,
or source code would be taken for Portuguese, and a list of presidents for Spanish."""

LETTERS = {
    ENGLISH: "",
    "german": "äöü",
    "french": "àâçèéêëîïôùûüœæ",
    "spanish": "áéíñóúü",
    "italian": "àèéìòù",
    "portuguese": "áâãàçéêíóôõú",
    "dutch": "ëïéèöü",
    "russian": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
}

_ENDINGS = {
    ENGLISH: "ing ings ness ful ship ships able ally ity ities ies ion ions ment ments ly ed ght wn sh th ck",
    "german": "ung ungen keit keiten heit heiten lich liche lichen licher isch ische ischen ieren iert schaft schaften "
    "tion tionen chen end ende enden sch tzt ein en er tz",
    "french": "tion tions ment ments eur eurs euse aux eux ique iques age ages aire aires ité ités er ier ière ée ées "
    "ant ante ois oir ons ez",
    "spanish": "ción ciones miento mientos dad dades mente ador adora ico ica icos icas ando iendo ado ada ados adas "
    "ar ir ero era eros ía os as ión",
    "italian": "zione zioni mento menti ità mente tore tori ico ica ici iche ando endo ato ata ati ate are ere ire "
    "zza gio ggio sco",
    "portuguese": "ção ções mento mentos dade dades mente dor dora ico ica icos icas ando endo ado ada ados adas ar er "
    "ir agem ância ões ão os as vel eiro eira",
    "dutch": "ing ingen heid heden lijk lijke isch ische eren eerd atie aties sel baar tie en ijk ijke aar elijk ijn "
    "jes je uit oek eek",
}


def _languages_by_ending() -> dict[str, list[str]]:
    languages: dict[str, list[str]] = {}
    for language, endings in _ENDINGS.items():
        for ending in endings.split():
            languages.setdefault(ending, []).append(language)
    return languages


BY_ENDING = _languages_by_ending()
LONGEST_ENDING = max(map(len, BY_ENDING))

KNOWN_WORDS = 20_000
"""Words whose signs are kept."""


FUNCTION_WORDS = {
    language: frozenset(word for word in listed if len(word) > 1) for language, listed in stop_words.BY_LANGUAGE.items()
}
LISTED = frozenset[str]().union(*FUNCTION_WORDS.values())
LONE_LETTERS = {language: stop_words.BY_LANGUAGE[language] - listed for language, listed in FUNCTION_WORDS.items()}


class LanguageGuesser:
    """Tells languages apart. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[str, Sequence[tuple[str, float]]] = {}

    def guess(self, words: Sequence[str], likely: str) -> str:
        """Returns the language of a text; the likely one, unless the text clearly speaks for another.

        Args:
            words: Its words, as ``words_of`` gave them.
            likely: The language of most texts that stand where this one does.
        """
        distinct = _distinct(words)
        scores = _by_function_words(distinct, {likely, *LETTERS})
        # Where endings and letters could not change the answer, which is so in most texts, they are not looked at.
        others = max(score for language, score in scores.items() if language != likely)
        if others + MOST_WEAK < _needed(scores[likely] - MOST_WEAK, LEAD):
            return likely
        return most_likely(self._with_weak(distinct, scores), likely, LEAD)

    def scores(self, words: Sequence[str], among: Collection[str]) -> dict[str, float]:
        """Returns how much a text speaks for each of some languages; 0 for those that cannot be told.

        Args:
            words: Its words, as ``words_of`` gave them.
            among: The languages.
        """
        distinct = _distinct(words)
        return self._with_weak(distinct, _by_function_words(distinct, among))

    def _with_weak(self, distinct: Collection[str], scores: Mapping[str, float]) -> dict[str, float]:
        weak = dict.fromkeys(scores, 0.0)
        for word in distinct:
            for language, weight in self._weak_signs(word):
                if language in weak:
                    weak[language] += weight
        return {language: score + max(-MOST_WEAK, min(weak[language], MOST_WEAK)) for language, score in scores.items()}

    def _weak_signs(self, word: str) -> Sequence[tuple[str, float]]:
        known = self._known.get(word)
        if known is None:
            if len(self._known) >= KNOWN_WORDS:
                self._known.clear()
            known = self._known[word] = (*_signs_of_ending(word), *_signs_of_letters(word))
        return known


def most_likely(scores: Mapping[str, float], likely: str, lead: float) -> str:
    """Returns the language of a text: the likely one, unless another one has the lead.

    Args:
        scores: What ``LanguageGuesser.scores`` gave.
        likely: One of the languages.
        lead: By how much the other one has to be ahead.
    """
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] >= _needed(scores[likely], lead) else likely


def _needed(score: float, lead: float) -> float:
    return max(score + lead, score * SHARE)


def _distinct(words: Sequence[str]) -> set[str]:
    # A word counts once: a name that is repeated must not decide.
    return set(words if len(words) <= LOOKED_AT else words[:: -(-len(words) // LOOKED_AT)])


def _by_function_words(distinct: set[str], among: Collection[str]) -> dict[str, float]:
    scores = {
        language: len(distinct & FUNCTION_WORDS[language]) + SINGLE_LETTER * len(distinct & LONE_LETTERS[language])
        if language in LETTERS
        else 0.0
        for language in among
    }
    for language in OF_ANOTHER_SCRIPT.intersection(among):
        letters = LETTERS[language]
        if max(distinct, default="") >= min(letters):
            scores[language] += OWN_SCRIPT * sum(word[0] in letters for word in distinct)
    return scores


def _signs_of_letters(word: str) -> list[tuple[str, float]]:
    beyond_ascii = {letter for letter in word if letter > "\x7f" and letter.isalpha()}
    if not beyond_ascii:
        return []
    return [
        (language, OWN_LETTERS if beyond_ascii.issubset(letters) else FOREIGN_LETTERS)
        for language, letters in LETTERS.items()
    ]


def _signs_of_ending(word: str) -> list[tuple[str, float]]:
    if word in LISTED:
        return []
    for length in range(min(LONGEST_ENDING, len(word) - 2), 1, -1):
        languages = BY_ENDING.get(word[-length:])
        if languages is not None:
            return [(language, SHORT_ENDING if length == 2 else ENDING) for language in languages]
    return []
