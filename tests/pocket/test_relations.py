"""The relations to measure with: enough to ask about, and nothing that a list of the corpus could hold."""

import random

import pytest

from ptlearn.pocket import relations
from ptlearn.pocket.relations import EVALUATED, RELATIONS

TRAINED = {"fact": relations.FACTS, "pick a kind": ("pick",), "pick a place": ("pick",)}  # others: the same name
NEW = [name for name, relation in EVALUATED.items() if RELATIONS.get(name) is not relation]


@pytest.mark.parametrize("name", NEW)
def test_many_different_questions_and_none_of_them_in_a_list(name):
    rng = random.Random(0)
    asked = {relations.episode(EVALUATED[name], 4, rng)[1] for _ in range(120)}
    assert len({query for query, _ in asked}) >= 20
    for trained in TRAINED.get(name, (name,)):
        found = {pair for _ in range(300) for pair in relations.pairs(RELATIONS[trained], 20, rng)}
        assert not asked & found


def test_the_demonstrations_are_those_of_the_lists():
    rng = random.Random(1)
    for _ in range(40):
        shown, _ = relations.episode(EVALUATED["add"], 8, rng)
        assert max(int(number) for number, _ in shown) <= 40
        shown, _ = relations.episode(EVALUATED["combine"], 8, rng)
        assert max(int(pair.split()[0]) for pair, _ in shown) <= 15


def test_one_rule_holds_for_a_whole_episode():
    rng = random.Random(2)
    for _ in range(20):
        shown, asked = relations.episode(EVALUATED["pick a place"], 6, rng)
        places = [{place for place, word in enumerate(text.split()) if word == kept} for text, kept in [*shown, asked]]
        assert set.intersection(*places)
        shown, asked = relations.episode(EVALUATED["fact"], 6, rng)
        assert any({*shown, asked} <= relations.STATED[field] for field in relations.FACTS)
