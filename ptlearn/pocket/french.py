"""The French and English of the pocket world: a lexicon in three tables and a small grammar that agrees.

One French sentence has one English rendering and the reverse, so a translation is right or wrong and never a matter of
taste: `tu` is the only "you", `ils` the only "they", `son` always "his". Questions, past tenses and `vous` are left
out.
Read the lexicon first, then `NounPhrase`, `Sentence`, and last what draws them.
"""

import csv
import random
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True)
class Noun:
    french: str
    gender: str
    french_plural: str
    english: str
    english_plural: str
    kind: str


@dataclass(frozen=True)
class Verb:
    """A transitive verb in the present tense, one French form for each person of the grammar."""

    infinitive: str
    je: str
    tu: str
    il: str
    nous: str
    ils: str
    english: str
    english_third: str
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Adjective:
    masculine: str
    feminine: str
    masculine_plural: str
    feminine_plural: str
    english: str
    before: bool

    def agree(self, feminine: bool, plural: bool) -> str:
        if plural:
            return self.feminine_plural if feminine else self.masculine_plural
        return self.feminine if feminine else self.masculine


@dataclass(frozen=True)
class Determiner:
    masculine: str
    feminine: str
    masculine_before_vowel: str
    feminine_before_vowel: str
    plural: str
    english: str
    english_plural: str


@dataclass(frozen=True)
class Pronoun:
    """A subject pronoun; `person` names the column of the verb table."""

    french: str
    english: str
    person: str
    feminine: bool
    plural: bool


def rows(name: str) -> list[dict[str, str]]:
    with open(TABLES / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


NOUNS = tuple(Noun(**row) for row in rows("nouns.csv"))
VERBS = tuple(Verb(**{**row, "objects": tuple(row["objects"].split())}) for row in rows("verbs.csv"))
ADJECTIVES = tuple(Adjective(**{**row, "before": row["before"] == "1"}) for row in rows("adjectives.csv"))
BE = Verb("être", "suis", "es", "est", "sommes", "sont", "are", "is", ())

THE = Determiner("le", "la", "l'", "l'", "les", "the", "the")
A = Determiner("un", "une", "un", "une", "des", "a", "some")
MY = Determiner("mon", "ma", "mon", "mon", "mes", "my", "my")
YOUR = Determiner("ton", "ta", "ton", "ton", "tes", "your", "your")
HIS = Determiner("son", "sa", "son", "son", "ses", "his", "his")
THIS = Determiner("ce", "cette", "cet", "cette", "ces", "this", "these")
DETERMINERS = (THE, A, MY, YOUR, HIS, THIS)

JE = Pronoun("je", "i", "je", False, False)
TU = Pronoun("tu", "you", "tu", False, False)
IL = Pronoun("il", "he", "il", False, False)
ELLE = Pronoun("elle", "she", "il", True, False)
NOUS = Pronoun("nous", "we", "nous", False, True)
ILS = Pronoun("ils", "they", "ils", False, True)
PRONOUNS = (JE, TU, IL, ELLE, NOUS, ILS)
# `tu` and `elle` have no entry: `vous` would be a second "you", `elles` a second "they".
PLURAL_PRONOUNS = {JE: NOUS, IL: ILS}

VOWELS = frozenset("aâeéèêiîoôœuû")
ASPIRATED_H = frozenset({"hache", "haricot", "harpe", "hérisson", "héros", "hibou"})
MASCULINE_BEFORE_VOWEL = {"beau": "bel", "nouveau": "nouvel", "vieux": "vieil"}
# English chooses a or an by the sound: these two begin with a letter that misleads.
AN_EXCEPTIONS = {"honest": "an", "useful": "a"}

LIVING = ("person", "animal")
KINDS = ("person", "animal", "thing", "place", "food")
LIVING_ONLY = (
    "jeune riche pauvre heureux triste content jaloux fier gentil méchant cruel courageux timide paresseux curieux "
    "nerveux poli honnête intelligent stupide drôle sérieux malade fatigué fort faible rapide lent"
)
LIFELESS_ONLY = "long carré humide sec profond large étroit vide plein utile moderne ancien cher"
# A colour or an insult beside a drawn profession or family member reads as a slur.
NOT_OF_PERSONS = "noir blanc rouge bleu vert jaune gris brun rose violet gros laid sale"
EXCLUDED = {kind: set((LIFELESS_ONLY if kind in LIVING else LIVING_ONLY).split()) for kind in KINDS}
EXCLUDED["person"].update(NOT_OF_PERSONS.split())

ADJECTIVES_OF_KIND = {kind: tuple(a for a in ADJECTIVES if a.masculine not in EXCLUDED[kind]) for kind in KINDS}
LIVING_NOUNS = tuple(noun for noun in NOUNS if noun.kind in LIVING)
OBJECTS_OF_VERB = {verb.infinitive: tuple(n for n in NOUNS if n.kind in verb.objects) for verb in VERBS}

# The comma belongs to the phrases of time: French writes "puis le chat" and "le matin, le chat".
CONNECTIVES = (
    "puis",
    "mais",
    "et",
    "alors",
    "ensuite,",
    "enfin,",
    "aujourd'hui,",
    "le matin,",
    "le soir,",
    "plus tard,",
)


def begins_with_vowel(word: str) -> bool:
    """Whether `word` calls for an elision: a vowel or a mute h.

    >>> [begins_with_vowel(word) for word in ("œuf", "homme", "hibou", "chat")]
    [True, True, False, False]
    """
    return word[0] in VOWELS or (word[0] == "h" and word not in ASPIRATED_H)


@dataclass(frozen=True)
class NounPhrase:
    """A determiner, a noun and perhaps an adjective.

    >>> nouns = {noun.french: noun for noun in NOUNS}
    >>> adjectives = {adjective.masculine: adjective for adjective in ADJECTIVES}
    >>> phrase = NounPhrase(THIS, nouns["oiseau"], adjective=adjectives["beau"])
    >>> phrase.french, phrase.english
    ('ce bel oiseau', 'this beautiful bird')
    >>> replace(phrase, determiner=A, plural=True).french
    'de beaux oiseaux'
    """

    determiner: Determiner
    noun: Noun
    plural: bool = False
    adjective: Adjective | None = None

    @property
    def person(self) -> str:
        return "ils" if self.plural else "il"

    @property
    def feminine(self) -> bool:
        return self.noun.gender == "f"

    @property
    def french(self) -> str:
        words = self.noun.french_plural if self.plural else self.noun.french
        before = self.adjective is not None and self.adjective.before
        if self.adjective is not None:
            form = self.adjective.agree(self.feminine, self.plural)
            if before and not self.plural and begins_with_vowel(words):
                form = MASCULINE_BEFORE_VOWEL.get(form, form)
            words = f"{form} {words}" if before else f"{words} {form}"
        if self.plural:
            # Good French says "de petits chats", not "des petits chats".
            return f"de {words}" if before and self.determiner is A else f"{self.determiner.plural} {words}"
        vowel = begins_with_vowel(words.split(" ", 1)[0])
        if self.feminine:
            determiner = self.determiner.feminine_before_vowel if vowel else self.determiner.feminine
        else:
            determiner = self.determiner.masculine_before_vowel if vowel else self.determiner.masculine
        return determiner + words if determiner == "l'" else f"{determiner} {words}"

    @property
    def english(self) -> str:
        words = self.noun.english_plural if self.plural else self.noun.english
        if self.adjective is not None:
            words = f"{self.adjective.english} {words}"
        determiner = self.determiner.english_plural if self.plural else self.determiner.english
        if determiner == "a":
            determiner = AN_EXCEPTIONS.get(words.split(" ", 1)[0], "an" if words[0] in "aeiou" else "a")
        return f"{determiner} {words}"


@dataclass(frozen=True)
class Sentence:
    """A subject, a verb and what follows it, rendered in both languages; an `Adjective` follows only `BE`.

    >>> verb = next(verb for verb in VERBS if verb.english == "love")
    >>> cat, man = (next(noun for noun in NOUNS if noun.english == english) for english in ("cat", "man"))
    >>> s = Sentence(NounPhrase(MY, cat), verb, NounPhrase(A, man))
    >>> s.french, s.english
    ('mon chat aime un homme', 'my cat loves a man')
    >>> negate(s).french, negate(s).english
    ("mon chat n'aime pas l'homme", 'my cat does not love the man')
    >>> pluralize(s).french
    'mes chats aiment un homme'
    """

    subject: NounPhrase | Pronoun
    verb: Verb
    complement: NounPhrase | Adjective
    negated: bool = False

    @property
    def has_plural(self) -> bool:
        """Whether `pluralize` changes it: the subject is singular, and is neither `tu` nor `elle`."""
        return self.subject in PLURAL_PRONOUNS if isinstance(self.subject, Pronoun) else not self.subject.plural

    @property
    def french(self) -> str:
        subject, verb = self.subject.french, getattr(self.verb, self.subject.person)
        if isinstance(self.complement, Adjective):
            complement = self.complement.agree(self.subject.feminine, self.subject.plural)
        else:
            complement = self.complement.french
        elided = begins_with_vowel(verb)
        if self.negated:
            verb = f"n'{verb} pas" if elided else f"ne {verb} pas"
        elif elided and self.subject is JE:
            return f"j'{verb} {complement}"
        return f"{subject} {verb} {complement}"

    @property
    def english(self) -> str:
        person = self.subject.person
        if self.verb is BE:
            verb = "am" if person == "je" else BE.english_third if person == "il" else BE.english
            verb = f"{verb} not" if self.negated else verb
        elif self.negated:
            verb = f"{'does' if person == 'il' else 'do'} not {self.verb.english}"
        else:
            verb = self.verb.english_third if person == "il" else self.verb.english
        return f"{self.subject.english} {verb} {self.complement.english}"


def negate(s: Sentence) -> Sentence:
    """Say that it is not so; "a house" becomes "the house", for French would say `pas de maison`."""
    complement = s.complement
    if isinstance(complement, NounPhrase) and complement.determiner is A:
        complement = replace(complement, determiner=THE)
    return replace(s, complement=complement, negated=True)


def pluralize(s: Sentence) -> Sentence:
    """Put the subject in the plural, and with it the verb and the predicate; the object stays.

    A plural sentence is returned as it is.

    Raises:
        ValueError: the subject is `tu` or `elle`, whose plurals English does not tell apart; ask `has_plural` first.
    """
    if s.subject.plural:
        return s
    if not s.has_plural:
        raise ValueError(f"the pronoun {s.subject.french!r} has no plural in this grammar: check has_plural first")
    if isinstance(s.subject, Pronoun):
        return replace(s, subject=PLURAL_PRONOUNS[s.subject])
    return replace(s, subject=replace(s.subject, plural=True))


def is_held_out(french: str) -> bool:
    """Whether a sentence is among the 5 % that the corpus never contains.

    >>> is_held_out("le chat voit la maison"), is_held_out("le chat voit le chien")
    (True, False)
    """
    return zlib.crc32(french.encode("utf-8")) % 20 == 0


def noun_phrase(rng: random.Random, nouns: tuple[Noun, ...], adjective_share: float = 0.0) -> NounPhrase:
    """Draw a noun phrase: about half of them definite, a third plural."""
    noun = rng.choice(nouns)
    determiner = THE if rng.random() < 0.4 else rng.choice(DETERMINERS)
    adjective = rng.choice(ADJECTIVES_OF_KIND[noun.kind]) if rng.random() < adjective_share else None
    return NounPhrase(determiner, noun, rng.random() < 1 / 3, adjective)


def sentence(rng: random.Random) -> Sentence:
    """Draw a sentence: one in five says what something is, the others what someone does; one in six is negative.

    >>> s = sentence(random.Random(1))
    >>> 3 <= len(s.french.replace("'", " ").split()) <= 8
    True
    """
    if rng.random() < 0.2:
        s = description(rng, rng.choice(PRONOUNS) if rng.random() < 0.3 else noun_phrase(rng, NOUNS))
    else:
        s = action(rng, rng.choice(PRONOUNS) if rng.random() < 0.3 else noun_phrase(rng, LIVING_NOUNS))
    return negate(s) if rng.random() < 1 / 6 else s


def description(rng: random.Random, subject: NounPhrase | Pronoun) -> Sentence:
    """Draw what `subject` is: `le chat est noir`."""
    if isinstance(subject, Pronoun):
        return Sentence(subject, BE, rng.choice(ADJECTIVES_OF_KIND["person"]))
    if subject.determiner is A:
        subject = replace(subject, determiner=THE)
    return Sentence(subject, BE, rng.choice(ADJECTIVES_OF_KIND[subject.noun.kind]))


def action(rng: random.Random, subject: NounPhrase | Pronoun) -> Sentence:
    """Draw what `subject` does: `le chat voit une petite maison`; at most one of the two phrases has an adjective."""
    verb = rng.choice(VERBS)
    adjective_on = rng.random()
    if adjective_on < 0.25 and isinstance(subject, NounPhrase):
        subject = replace(subject, adjective=rng.choice(ADJECTIVES_OF_KIND[subject.noun.kind]))
    return Sentence(subject, verb, noun_phrase(rng, OBJECTS_OF_VERB[verb.infinitive], float(adjective_on > 0.7)))


def french_story(rng: random.Random) -> str:
    """Tell three to six sentences of French prose about one person or animal, none of them held out.

    >>> story = french_story(random.Random(0))
    >>> story[0].isupper(), story[-1], 3 <= story.count(".") <= 6
    (True, '.', True)
    """
    topic = NounPhrase(rng.choice((THE, THE, A, MY, HIS)), rng.choice(LIVING_NOUNS))
    pronoun = ELLE if topic.feminine else IL
    known = replace(topic, determiner=THE if topic.determiner is A else topic.determiner)
    length = rng.randint(3, 6)
    told: list[str] = []
    while len(told) < length:
        subject = pronoun if told and rng.random() < 0.5 else known if told else topic
        s = description(rng, subject) if told and rng.random() < 0.3 else action(rng, subject)
        s = negate(s) if told and rng.random() < 0.15 else s
        if is_held_out(s.french):
            continue
        text = f"{rng.choice(CONNECTIVES)} {s.french}" if told and rng.random() < 0.6 else s.french
        told.append(f"{text[0].upper()}{text[1:]}.")
    return " ".join(told)
