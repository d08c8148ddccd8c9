"""The fact tables of the pocket world: sizes, uniqueness and hand-checked facts."""

import csv
from collections import Counter

import pytest

from ptlearn.pocket.world import COUNTRIES, NAMES, PAIRS, SENTIMENT, TABLES, WORDS, is_held_out

BY_NAME = {country.name: country for country in COUNTRIES}
VERDICTS = {"great", "awful", "good", "bad", "terrible", "wonderful"}


@pytest.mark.parametrize("table", ["countries", "words", "pairs", "names", "sentiment"])
def test_cells_are_clean(table):
    text = (TABLES / f"{table}.csv").read_text(encoding="utf-8")
    assert text.isascii()
    rows = list(csv.reader(text.splitlines()))
    assert len(set(map(len, rows))) == 1
    assert len(set(map(tuple, rows))) == len(rows)
    for row in rows:
        for cell in row:
            assert cell and cell == " ".join(cell.split())


def test_there_are_many_countries():
    assert len(COUNTRIES) >= 165
    assert 14 <= len({country.region for country in COUNTRIES}) <= 22


@pytest.mark.parametrize("field", ["name", "capital", "demonym"])
def test_a_country_is_known_by(field):
    values = [getattr(country, field) for country in COUNTRIES]
    assert len(set(values)) == len(values)


def test_capitals_are_not_countries():
    assert not {country.capital for country in COUNTRIES} & set(BY_NAME)


def test_languages_and_currencies_are_one_word():
    for country in COUNTRIES:
        assert country.language.isalpha() and country.language[0].isupper()
        assert country.currency.isalpha() and country.currency.islower()
        assert country.demonym[0].isupper()


@pytest.mark.parametrize(
    "facts",
    [
        "Kenya|Nairobi|East Africa|Swahili|shilling|Kenyan",
        "Nigeria|Abuja|West Africa|English|naira|Nigerian",
        "Egypt|Cairo|North Africa|Arabic|pound|Egyptian",
        "Angola|Luanda|Southern Africa|Portuguese|kwanza|Angolan",
        "Ethiopia|Addis Ababa|East Africa|Amharic|birr|Ethiopian",
        "Gabon|Libreville|Central Africa|French|franc|Gabonese",
        "France|Paris|Western Europe|French|euro|French",
        "Switzerland|Bern|Western Europe|German|franc|Swiss",
        "Norway|Oslo|Northern Europe|Norwegian|krone|Norwegian",
        "Poland|Warsaw|Eastern Europe|Polish|zloty|Polish",
        "Hungary|Budapest|Eastern Europe|Hungarian|forint|Hungarian",
        "Greece|Athens|Southern Europe|Greek|euro|Greek",
        "Georgia|Tbilisi|the Caucasus|Georgian|lari|Georgian",
        "Kazakhstan|Astana|Central Asia|Kazakh|tenge|Kazakh",
        "Bangladesh|Dhaka|South Asia|Bengali|taka|Bangladeshi",
        "Thailand|Bangkok|Southeast Asia|Thai|baht|Thai",
        "Japan|Tokyo|East Asia|Japanese|yen|Japanese",
        "Iran|Tehran|the Middle East|Persian|rial|Iranian",
        "Canada|Ottawa|North America|English|dollar|Canadian",
        "Honduras|Tegucigalpa|Central America|Spanish|lempira|Honduran",
        "Haiti|Port-au-Prince|the Caribbean|French|gourde|Haitian",
        "Peru|Lima|South America|Spanish|sol|Peruvian",
        "Brazil|Brasilia|South America|Portuguese|real|Brazilian",
        "Australia|Canberra|Oceania|English|dollar|Australian",
        "Samoa|Apia|Oceania|Samoan|tala|Samoan",
    ],
)
def test_country_facts(facts):
    name, capital, region, language, currency, demonym = facts.split("|")
    country = BY_NAME[name]
    assert (country.capital, country.region, country.language) == (capital, region, language)
    assert (country.currency, country.demonym) == (currency, demonym)


def test_words_fall_in_one_category():
    assert len(WORDS) >= 20
    assert min(map(len, WORDS.values())) >= 28
    counts = Counter(word for words in WORDS.values() for word in words)
    assert [word for word, count in counts.items() if count > 1] == []
    assert all(word.isalpha() and word.islower() for word in counts)


@pytest.mark.parametrize(
    ("relation", "least", "left", "right"),
    [
        ("opposite", 40, "hot", "cold"),
        ("plural", 80, "mouse", "mice"),
        ("past", 80, "swim", "swam"),
        ("comparative", 50, "big", "bigger"),
        ("young", 20, "cow", "calf"),
        ("place", 30, "teacher", "school"),
        ("use", 30, "knife", "cut"),
        ("made_of", 20, "candle", "wax"),
        ("sound", 15, "duck", "quack"),
        ("number", 41, "7", "seven"),
        ("number", 41, "40", "forty"),
        ("ordinal", 30, "1", "first"),
        ("ordinal", 30, "22", "twenty-second"),
        ("month_next", 12, "December", "January"),
        ("agent", 40, "bake", "baker"),
        ("adverb", 50, "easy", "easily"),
        ("noun_color", 30, "banana", "yellow"),
    ],
)
def test_pairs(relation, least, left, right):
    pairs = PAIRS[relation]
    assert len(pairs) >= least
    assert dict(pairs)[left] == right
    assert len(dict(pairs)) == len(pairs)


def test_opposites_are_listed_once():
    words = [word for pair in PAIRS["opposite"] for word in pair]
    assert len(set(words)) == len(words)


def test_names():
    assert len({name for name, _ in NAMES}) == len(NAMES)
    assert Counter(pronoun for _, pronoun in NAMES) == {"he": 40, "she": 40}


def test_sentiment():
    kinds = Counter((phrase.polarity, phrase.kind) for phrase in SENTIMENT)
    abouts = Counter((phrase.polarity, phrase.about) for phrase in SENTIMENT if phrase.kind == "clause")
    for polarity in ("positive", "negative"):
        assert kinds[polarity, "adjective"] >= 60
        assert kinds[polarity, "noun_phrase"] >= 30
        assert kinds[polarity, "clause"] >= 80
        assert all(abouts[polarity, about] >= 12 for about in ("movie", "book", "meal", "hotel", "any"))
    assert len(kinds) == 6 and len(abouts) == 10
    assert len({phrase.phrase for phrase in SENTIMENT}) == len(SENTIMENT)
    for phrase in SENTIMENT:
        assert phrase.phrase == phrase.phrase.lower()
        assert not set(",.") & set(phrase.phrase)
        assert not VERDICTS & set(phrase.phrase.split())


def test_held_out_is_stable_and_small():
    # Weights that were trained on this split are shipped, so the split may never move.
    assert [n for n in range(100) if is_held_out(str(n))] == [6, 37, 40, 82, 94]
    assert 0.04 < sum(is_held_out(str(n)) for n in range(10_000)) / 10_000 < 0.06
