"""Benchmark-style items: the labels of inference against a small logic, balance, and the split."""

import re

import pytest

from ptlearn.pocket import benchmarks, french, relations, tales
from ptlearn.pocket.benchmarks import hans, items

TRAINING = items(3000, 0)
TESTS = items(400, 0, held_out=True)
HANS = hans(200, 0)
NAMES = "|".join(sorted({noun.english for noun in tales.PERSONS}, key=len, reverse=True))
PERSON = rf"the (?:{NAMES})"
VERBS = {form: verb for verb in french.VERBS for form in (verb.english, verb.english_third)}
VERB = "|".join(sorted(map(re.escape, VERBS), key=len, reverse=True))
GROUP = rf"{PERSON}(?: (?:and|near) {PERSON})?"


def statements(sentence):
    """Who does what to whom: "A and B see C near D" is A to C and B to C; what is merely near does nothing."""
    subjects, negation, verb, objects = re.fullmatch(rf"({GROUP}) (does not )?({VERB}) ({GROUP})", sentence).groups()

    def named(group):
        first, _, second = group.partition(" and ")
        return [first.partition(" near ")[0], *([second] if second else [])]

    return {(s, VERBS[verb].infinitive, o, bool(negation)) for s in named(subjects) for o in named(objects)}


def parts(item):
    return re.fullmatch(r"Premise: (.+)\.\nHypothesis: (.+)\.\nDoes it follow\?", item.prompt).groups()


def test_labels_of_inference_follow_from_who_does_what_to_whom():
    pairs = [item for item in TRAINING + TESTS + HANS if item.benchmark in ("nli", "hans")]
    assert len(pairs) > 1000
    for item in pairs:
        premise, hypothesis = map(statements, parts(item))
        assert item.response == ("yes" if hypothesis <= premise else "no"), item.prompt


def test_overlap_says_nothing_in_hans_and_much_in_training():
    for item in HANS:
        premise, hypothesis = (set(text.split()) for text in parts(item))
        # "see" of two and "sees" of one are the same word
        assert {VERBS[w].infinitive if w in VERBS else w for w in hypothesis} <= {
            VERBS[w].infinitive if w in VERBS else w for w in premise
        }
    assert [item.response for item in HANS] == ["yes", "no"] * 100
    nli = [item for item in TRAINING if item.benchmark == "nli"]
    overlapping = [item for item in nli if set(parts(item)[1].split()) <= set(parts(item)[0].split())]
    assert sum(item.response == "yes" for item in overlapping) / len(overlapping) > 0.75
    new_words = [item for item in nli if not set(parts(item)[1].split()) <= set(parts(item)[0].split())]
    assert sum(item.response == "no" for item in new_words) / len(new_words) > 0.9


def test_benchmarks_are_drawn_alike_and_their_labels_are_balanced():
    for name in benchmarks.BENCHMARKS:
        assert 0.28 < sum(item.benchmark == name for item in TRAINING) / 3000 < 0.39
    for name, label in (("nli", "yes"), ("sentiment", "positive")):
        drawn = [item.response == label for item in TRAINING if item.benchmark == name]
        assert 0.44 < sum(drawn) / len(drawn) < 0.56


def test_answers_are_the_stated_facts():
    forms = {
        "capital": r"What is the capital of (.+)\?",
        "language": r"What is the language of (.+)\?",
        "currency": r"What is the currency of (.+)\?",
        "region": r"In which region is (.+)\?",
    }
    asked = [item for item in TRAINING + TESTS if item.benchmark == "qa"]
    for item in asked:
        [(field, name)] = [
            (field, match[1])
            for field, form in forms.items()
            if (match := re.fullmatch(rf"Question: {form}\nAnswer:", item.prompt))
        ]
        assert dict(relations.stated(field))[name] == item.response


def test_training_and_tests_share_no_prompt_and_draws_repeat():
    held_out = {item.prompt for item in TESTS} | {item.prompt for item in HANS}
    assert not {item.prompt for item in TRAINING} & held_out
    for drawn in ([item for item in TRAINING if item.benchmark != "qa"], HANS, items(150, 3, held_out=True)):
        assert len({item.prompt for item in drawn}) == len(drawn)
    assert items(50, 0) == TRAINING[:50] and items(50, 1) != TRAINING[:50]
    assert hans(20, 0) == HANS[:20]
    questions = items(1000, 0, benchmarks=["qa"])  # more than there are
    assert {item.benchmark for item in questions} == {"qa"} and 500 < len({item.prompt for item in questions}) < 700


@pytest.mark.parametrize(("count", "names"), [(-1, None), (1, ["squad"]), (1, [])])
def test_bad_arguments_are_named(count, names):
    with pytest.raises(ValueError, match=f"count={count}, benchmarks=.* of nli, qa, sentiment"):
        items(count, benchmarks=names)
