"""Lesson 04: a Self-Instruct round in parts, the cost of a data set, the gain of more data, and the data contest.

The expectations are plain Python on lists, from the definitions; models are functions that look their texts up.
"""

import math
import random
import re
from collections import Counter

from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.pocket import data_contest

# 4.1 What the teacher is shown ---------------------------------------------------------------------------------------

MACHINE_SHOWN = 2
DRAWS = 80  # of demonstrations, in which whatever can happen does


def demonstrations(people, machine, count, rng):
    """The answer that the lesson goes on with: a few of the machine's, the rest people's, in random order."""
    few = rng.sample(machine, min(MACHINE_SHOWN, len(machine), count - 1))
    shown = few + rng.sample(people, count - len(few))
    rng.shuffle(shown)
    return shown


def demonstration_cases(rng):
    """Many of the machine's, one, none; a list of two, which holds one of the machine's."""
    sizes = ((7, 5, 5), (6, 1, 4), (5, 0, 3), (4, 3, 2))
    return [
        {"people": [f"ask {n}" for n in rng.sample(range(100), people)],
         "machine": [f"tell {n}" for n in rng.sample(range(100), machine)], "count": count, "seed": rng.randrange(1000)}
        for people, machine, count in sizes
    ]  # fmt: skip


def drive_demonstrations(answer, case):
    """What is always so, and what is so in one of many draws."""
    people, machine, count = case["people"], case["machine"], case["count"]
    seeds = range(case["seed"], case["seed"] + DRAWS)
    drawn = [list(answer(list(people), list(machine), count, random.Random(seed))) for seed in seeds]
    again = [list(answer(list(people), list(machine), count, random.Random(seed))) for seed in seeds[:8]]
    return {
        "texts": sorted({len(shown) for shown in drawn}),
        "of neither list": sum(text not in people + machine for shown in drawn for text in shown),
        "twice in a list": sum(len(set(shown)) < len(shown) for shown in drawn),
        "of the machine": sorted({sum(text in machine for text in shown) for shown in drawn}),
        "drawn at all": len({text for shown in drawn for text in shown}),
        "places of the machine's":
            sorted({place for shown in drawn for place, text in enumerate(shown) if text in machine}),
        "the same from the same rng": drawn[:8] == again,
        "others from another rng": len({tuple(shown) for shown in drawn}) > 1,
    }  # fmt: skip


def expect_demonstrations(case):
    people, machine, count = case["people"], case["machine"], case["count"]
    few = min(MACHINE_SHOWN, len(machine), count - 1)
    right = {
        "texts": [count],
        "of neither list": 0,
        "twice in a list": 0,
        "of the machine": [few],
        "drawn at all": len(people) + len(machine),
        "places of the machine's": list(range(count)) if few else [],
        "the same from the same rng": True,
        "others from another rng": True,
    }
    return right, {}


def remark_demonstrations(case, data):
    """The first fact that is wrong, with its reason; the numbers of the machine's tell several mistakes apart."""
    right, _ = expect_demonstrations(case)
    wrong = [entry for entry in right if data.get(entry) != right[entry]]
    if not wrong:
        return None
    if not data.get("others from another rng"):
        return "the same texts whatever rng is: draw and shuffle with the one that is handed over"
    few, machine, count = right["of the machine"][0], len(case["machine"]), case["count"]
    found = data["of the machine"]
    words = {
        "texts": f"{data['texts']} texts come back for count={count}",
        "of neither list": "a text comes back that is in neither list",
        "twice in a list": "a text stands twice in a list: draw without putting back, as rng.sample does",
        "drawn at all": "some texts are never drawn: draw them by chance, from the whole list",
        "places of the machine's":
            "the machine's texts always stand in the same places: shuffle people's and its together",
        "the same from the same rng": "another result from the same rng: draw with it, and with nothing else",
    }  # fmt: skip
    if wrong[0] != "of the machine":
        return words[wrong[0]]
    if found == [0]:
        return f"none of the machine's {machine} texts is shown: {few} of them, the rest people's"
    if len(found) > 1:
        return f"the number of the machine's texts varies ({found}): it is always {few} of {count} here"
    if found[0] == count:
        return f"all {count} texts are the machine's: at least one is people's"
    return f"{found[0]} of {count} texts are the machine's: at most {MACHINE_SHOWN}, here {few}"


# 4.2 Texts that are no good ------------------------------------------------------------------------------------------

REFUSALS = ("i am sorry", "i'm sorry", "i cannot", "i can not", "i do not know", "as an ai")


def flaw(text, fewest, most, prompt=None):
    """The answer that the lesson goes on with: the first flaw of a text, or nothing."""
    if text is None:
        return "unfinished"
    if not text.strip():
        return "empty"
    if not fewest <= len(text.split()) <= most:
        return "length"
    if prompt is not None:
        said = text.strip().lower()
        if said.startswith(REFUSALS):
            return "refusal"
        if said == prompt.strip().lower():
            return "echo"
    return ""


def flaw_cases(rng):
    """Texts at the borders of each rule; then some words at random."""
    prompt = "Name the capital of Chad."
    fixed = (
        (None, 1, 9, None), (None, 1, 9, prompt), ("", 1, 9, None), ("  \n", 1, 9, prompt), ("  \t ", 0, 9, None),
        ("name it", 3, 9, None), ("name it now", 3, 9, None), ("a b c d", 1, 4, None), ("a b c d e", 1, 4, prompt),
        ("a  b \n c", 3, 3, None), (" I am sorry, I can not.", 1, 9, prompt), ("AS AN AI I must not", 1, 9, prompt),
        ("I do not know", 1, 9, None), ("He said: I do not know.", 1, 9, prompt), ("I do not know", 5, 9, prompt),
        (prompt, 1, 9, prompt), (f" {prompt.upper()} ", 1, 9, prompt), (f"{prompt} It is N'Djamena.", 1, 9, prompt),
        ("the capital", 1, 9, prompt), ("N'Djamena.", 1, 9, prompt), (prompt, 1, 9, None),
        ("i cannot", 1, 9, " i CANNOT"), ("so it is", 1, 9, " So IT is\n"),
    )  # fmt: skip
    words = ("red", "hats", "are", "cheap")
    drawn = [(" ".join(rng.choices(words, k=rng.randint(1, 8))), 3, 6, None) for _ in range(2)]
    names = ("text", "fewest", "most", "prompt")
    return [dict(zip(names, case, strict=True)) for case in (*fixed, *drawn)]


def drive_flaw(answer, case):
    """The verdict in words, so that None is a wrong one and no missing answer."""
    return str(answer(case["text"], case["fewest"], case["most"], case["prompt"]))


def _flaw(text, fewest, most, prompt, *, size=None, short=None, low=str.lower, strip=str.strip, blank=None, cloud=None,
          said=None):  # fmt: skip
    """`flaw` with one of its rules replaced."""
    if text is None:
        return "unfinished"
    if not (blank or strip)(text):
        return "empty"
    count = (size or (lambda text: len(text.split())))(text)
    if not (short or (lambda n: fewest <= n <= most))(count):
        return "length"
    if prompt is None and not said:
        return ""
    if (cloud or (lambda text: text.startswith(REFUSALS)))(low(strip(text))):
        return "refusal"
    return "echo" if prompt is not None and low(strip(text)) == low(strip(prompt)) else ""


def last_flaw(text, fewest, most, prompt):
    """A mistake: later rules overwrite what earlier ones found."""
    if text is None:
        return "unfinished"
    said, words = text.strip().lower(), len(text.split())
    found = "" if words else "empty"
    found = found if fewest <= words <= most else "length"
    if prompt is None:
        return found
    found = "refusal" if said.startswith(REFUSALS) else found
    return "echo" if said == prompt.strip().lower() else found


def expect_flaw(case):
    text, fewest, most, prompt = (case[name] for name in ("text", "fewest", "most", "prompt"))
    right = flaw(text, fewest, most, prompt)

    def by(**rule):
        return _flaw(text, fewest, most, prompt, **rule)

    mistakes = {
        "letters are counted: the length is in words": by(size=len),
        "fewest and most are allowed themselves": by(short=lambda n: fewest < n < most),
        "a text of `most` words is allowed": by(short=lambda n: fewest <= n < most),
        "a text of `fewest` words is allowed": by(short=lambda n: fewest < n <= most),
        "texts may be too long as well as too short": by(short=lambda n: fewest <= n),
        "texts may be too short as well as too long": by(short=lambda n: n <= most),
        "spaces are counted: words are what text.split() gives": by(size=lambda text: len(text.split(" "))),
        "capital letters do not matter, in a refusal and in an echo": by(low=str),
        "white space alone is empty": by(blank=str),
        "white space does not matter at the ends of a text":
            Alternatives(by(strip=str, blank=str.strip), by(strip=str)),
        "a refusal begins the text: words in its middle are none":
            by(cloud=lambda text: any(words in text for words in REFUSALS)),
        "a refusal need not be the whole text: it is how it begins": by(cloud=lambda text: text in REFUSALS),
        "an instruction cannot refuse: refusals and echoes need a prompt": by(said=True),
        "a text without words is 'empty'; 'unfinished' is None alone":
            Alternatives("unfinished" if right == "empty" else right, "unfinished" if text == "" else right),
        "too short and too long are both 'length'":
            right if right != "length" else "short" if len(text.split()) < fewest else "long",
        "the first flaw that holds counts, not the last": last_flaw(text, fewest, most, prompt),
        "a refusal begins with any of REFUSALS": Alternatives(
            *(by(cloud=lambda text, some=some: text.startswith(some)) for some in (REFUSALS[0], REFUSALS[-1]))),
        "an echo: capital letters do not matter, nor white space at the ends": Alternatives(
            "" if right == "echo" and text != prompt else right,
            "" if right == "echo" and text.strip() != prompt.strip() else right,
            "" if right == "echo" and text.lower() != prompt.lower() else right),
        "refusals are missing": "" if right == "refusal" and text.strip().lower() != (prompt or "").strip().lower()
            else "echo" if right == "refusal" else right,
        "echoes are missing": "" if right == "echo" else right,
        "an echo is the whole prompt, not a text that holds it": Alternatives(
            "echo" if right == "" and prompt and prompt.strip().lower() in text.lower() else right,
            right if right not in ("", "echo") else "echo" if prompt and prompt.lower() in text.lower() else ""),
        "an echo is the whole prompt, not a part of it":
            "echo" if right == "" and prompt and text.lower().strip() in prompt.lower() else right,
        "the first that holds: the length comes before a refusal":
            "refusal" if prompt is not None and text and text.strip().lower().startswith(REFUSALS) else right,
        "the first that holds: a refusal comes before an echo":
            "echo" if prompt is not None and text and text.strip().lower() == prompt.strip().lower() and
            right == "refusal" else right,
        "no flaw is the empty string": Alternatives("None", "kept") if right == "" else right,
        "the length comes after the empty text": "length" if right == "empty" and fewest > 0 else right,
    }  # fmt: skip
    if right != "":
        mistakes.pop("no flaw is the empty string")
    return right, mistakes


# 4.3 The novelty filter ----------------------------------------------------------------------------------------------


def accepted(proposals, pool, threshold, similarity):
    """The answer that the lesson goes on with: a pool that grows."""
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in known):
            known.append(text)
            numbers.append(number)
    return numbers


def below(similarities, threshold):
    return max(similarities) < threshold


def _filtered(proposals, pool, threshold, similarity, *, grows=True, new=below):
    """What a rule for similarities and threshold accepts."""
    known, numbers = list(pool), []
    for number, text in enumerate(proposals):
        if new([similarity(text, other) for other in known] or [-1], threshold):
            numbers.append(number)
            known += [text] * grows
    return numbers


def agreement(left, right):
    """A similarity that a case can hold: the share of places at which two words have the same letter."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


def filter_cases(rng):
    """Four-letter words; a pair exactly at the threshold, a pool of texts that are alike, no proposals."""
    cases = []
    for count, threshold in ((6, 0.6), (14, 0.6), (14, 0.4)):
        proposals = ["".join(rng.choices("abcd", k=4)) for _ in range(count)]
        cases.append({"proposals": proposals, "pool": ["aaaa", "bbbb"], "threshold": threshold})
    cases.append({"proposals": ["abcd", "abce", "abff", "wxyz", "wxyz"], "pool": ["qqqq"], "threshold": 0.5})
    cases.append({"proposals": ["aaac", "aabb", "aacc", "bbbb", "bbbb"], "pool": ["aaaa", "aaab"], "threshold": 0.6})
    cases.append({"proposals": [], "pool": ["abcd"], "threshold": 0.7})
    return cases


def drive_filter(answer, case):
    return answer(case["proposals"], case["pool"], case["threshold"], agreement)


def expect_filter(case):
    given = proposals, pool, threshold, similarity = (case["proposals"], case["pool"], case["threshold"], agreement)
    right = _filtered(*given)

    def by(new):
        return _filtered(*given, new=new)

    def compared(others):
        return [i for i, text in enumerate(proposals) if all(similarity(text, x) < threshold for x in others(i))]

    mistakes = {
        "proposals are compared with the given pool alone: an accepted one joins it": _filtered(*given, grows=False),
        "a similarity equal to the threshold is accepted: it has to be below": by(lambda found, low: max(found) <= low),
        "one dissimilar text of the pool is enough here: it has to be below for every one": Alternatives(
            by(lambda found, low: min(found) < low),
            _filtered(*given, grows=False, new=lambda found, low: min(found) < low),
        ),
        "the comparison is turned: accepted is what is below the threshold": by(lambda found, low: min(found) > low),
        "the mean similarity is compared: it has to be below for every one": by(
            lambda found, low: sum(found) / len(found) < low
        ),
        "threshold is an argument, not always 0.7": _filtered(proposals, pool, 0.7, similarity),
        "all are accepted": list(range(len(proposals))),
        "these are the rejected ones": [number for number in range(len(proposals)) if number not in right],
        "rejected proposals join the pool too: only accepted ones do": compared(lambda i: [*pool, *proposals[:i]]),
        "a proposal is compared with later ones, too: take them in order": compared(
            lambda i: [*pool, *proposals[:i], *proposals[i + 1 :]]
        ),
        "a proposal is compared with one text alone: all of the pool count": Alternatives(
            by(lambda found, low: found[-1] < low), by(lambda found, low: found[0] < low)
        ),
        "the pool is counted as well: the first proposal is number 0": [number + len(pool) for number in right],
        "these are the texts: return their numbers": [proposals[number] for number in right],
        "the seeds are left out: proposals are compared with the pool as well": _filtered(
            proposals, [], threshold, similarity
        ),
        "it ends at the first rejected one: go on with the next": right[
            : next((place for place, number in enumerate(right) if place != number), len(right))
        ],
    }
    return right, mistakes


# 4.4 A round ---------------------------------------------------------------------------------------------------------


def one_round(prompts, pool, propose, accept, answer, flaw):
    """The answer that the lesson goes on with: propose, judge, answer what is new, judge again."""
    texts = propose(prompts)
    flaws = [flaw(text) for text in texts]
    sound = [number for number, found in enumerate(flaws) if not found]
    new = [sound[place] for place in accept([texts[number] for number in sound], pool)]
    responses = dict(zip(new, answer([texts[number] for number in new]), strict=True))
    rows = []
    for number, text in enumerate(texts):
        verdict, response = flaws[number] or "similar", responses.get(number)
        if number in responses:
            found = flaw(response, text)
            verdict = f"response {found}" if found else "kept"
        rows.append((text or "", response or "", verdict))
    return rows


# pieces of instructions: each is a word, and a case's texts are drawn from them
TEXTS = ("paint a door", "sell the goat", "wash two hats", "count some eggs", "find my kite", "open the jar")
SEEN = ("read it aloud", "hide the key")


def round_cases(rng):
    """Two rounds with everything in them, one where all is kept, one where nothing is left to answer."""
    cases = []
    for _ in range(2):
        good = rng.sample(TEXTS, 5)
        texts = [*good, None, "", "go", rng.choice(SEEN), good[rng.randrange(5)]]
        rng.shuffle(texts)
        responses = dict(zip(good, (f"done {rng.randint(2, 99)}", None, "no", good[3], f"yes {rng.randint(2, 99)}")))
        cases.append({"texts": texts, "responses": responses, "pool": list(SEEN)})
    good = rng.sample(TEXTS, 3)
    cases.append({"texts": good, "responses": {text: f"fine {n}" for n, text in enumerate(good)}, "pool": list(SEEN)})
    cases.append({"texts": [None, SEEN[1], "go"], "responses": {}, "pool": list(SEEN)})
    return cases


def toy_flaw(text, prompt=None):
    """Of an instruction: one word alone; of a response: "no"."""
    if text is None:
        return "unfinished"
    if not text:
        return "empty"
    if prompt is None:
        return "" if len(text.split()) > 1 else "length"
    return "refusal" if text == "no" else "echo" if text == prompt else ""


def toy_accept(texts, pool):
    """Numbers of the texts that are not in the pool and not among the accepted ones before."""
    known, numbers = list(pool), []
    for number, text in enumerate(texts):
        if text not in known:
            known.append(text)
            numbers.append(number)
    return numbers


def drive_round(answer, case):
    prompts = [f"prompt {number}" for number in range(len(case["texts"]))]
    asked, offered, pools, answered = [], [], [], []

    def propose(some):
        asked.append(list(some))
        return [case["texts"][prompts.index(prompt)] for prompt in some]

    def accept(texts, pool):
        offered.append(list(texts))
        pools.append(list(pool))
        return toy_accept(texts, pool)

    def respond(instructions):
        answered.append(list(instructions))
        return [case["responses"].get(text, f"answer to {text}") for text in instructions]

    rows = answer(list(prompts), list(case["pool"]), propose, accept, respond, toy_flaw)
    return {
        "proposed from": asked,
        "offered as new": [texts for texts in offered if texts],
        "pool": pools[:1],
        "answered": [texts for texts in answered if texts],
        "rows": [list(row) for row in rows],
    }


def _by_text(case):
    """Rows of a mistake: responses are looked up by text, so that a repetition has one too."""
    rows = _round(case)["rows"]
    known = {row[0]: row for row in rows if row[2] == "kept" or row[2].startswith("response ")}
    return [list(known.get(row[0], row)) for row in rows]


def _round(case, *, screen=True, grows=True, answer_all=False, judge=True, aligned=True, names=lambda found: found):
    """What a round gives; options leave a part of it out."""
    texts, pool = case["texts"], case["pool"]
    flaws = [toy_flaw(text) if screen else "" for text in texts]
    sound = [number for number, found in enumerate(flaws) if not found]
    accepted = toy_accept([texts[number] for number in sound], pool)
    if not grows:
        accepted = [place for place, number in enumerate(sound) if texts[number] not in pool]
    new = sound if answer_all else [sound[place] for place in accepted] if aligned else accepted
    responses = {number: case["responses"].get(texts[number], f"answer to {texts[number]}") for number in new}
    rows = []
    for number, text in enumerate(texts):
        verdict, response = flaws[number] or "similar", responses.get(number)
        if number in responses:
            found = toy_flaw(response, text) if judge else ""
            verdict = f"response {found}" if found else "kept"
        rows.append([text or "", response or "", names(verdict)])
    prompts = [f"prompt {number}" for number in range(len(texts))]
    offered = [texts[number] for number in sound]
    return {
        "proposed from": [prompts], "offered as new": [offered] if offered else [], "pool": [pool],
        "answered": [[texts[number] for number in new]] if new else [], "rows": rows,
    }  # fmt: skip


def _judged(case, flaw):
    """Rows of a mistake: responses are judged by another function of (response, instruction)."""
    texts = [row[0] for row in _round(case)["rows"]]
    asked = _round(case)["answered"][0] if _round(case)["answered"] else []
    rows = _round(case)["rows"]
    for text in asked:
        found = flaw(case["responses"].get(text, f"answer to {text}"), text)
        rows[texts.index(text)][2] = f"response {found}" if found else "kept"
    return rows


def expect_round(case):
    right = _round(case)
    rows, prompts = right["rows"], right["proposed from"][0]

    def verdicts(change):
        return [[text, response, change(verdict)] for text, response, verdict in rows]

    mistakes = {
        ("proposed from", "propose is called for each prompt alone: call it once with all of them"):
            [[prompt] for prompt in prompts],
        ("offered as new", "texts with a flaw are offered to accept: ask flaw(text) first, and leave them out"):
            Alternatives([case["texts"]], [[text or "" for text in case["texts"]]]),
        ("offered as new", "texts are offered to accept one at a time: call it once, so that they see each other"):
            [[text] for text in right["offered as new"][0]] if right["offered as new"] else [],
        ("pool", "accept compares with an empty pool: hand it the pool"): [[]],
        ("answered", "answer is called for each instruction alone: call it once with all that are new"):
            [[text] for text in right["answered"][0]] if right["answered"] else [],
        ("answered", "instructions that are not new are answered too: only those that accept lets through"):
            _round(case, answer_all=True)["answered"],
        ("answered", "the numbers that accept returns are places in the list that it was handed, not in all texts"):
            _round(case, aligned=False)["answered"],
        ("answered", "answer gets instructions, not the prompts that led to them"): right["proposed from"],
        ("rows", "a repetition has its first one's row: go by number, two proposals may have the same text"):
            _by_text(case),
        ("rows", "responses are judged as instructions: flaw(response, instruction) has both"):
            _judged(case, lambda response, text: toy_flaw(response)),
        ("rows", "the arguments of flaw are turned: flaw(response, instruction)"):
            _judged(case, lambda response, text: toy_flaw(text, response)),
        ("rows", "rows of responses with a flaw are missing: a row for every proposal"):
            [row for row in rows if not row[2].startswith("response ")],
        ("rows", "rows of proposals without a text are missing: a row for every proposal"): Alternatives(
            [row for row in rows if row[0]], [row for row in rows if row[2] != "unfinished"]),
        ("rows", "a verdict is 'response ' and the flaw, without a colon"): Alternatives(
            verdicts(lambda verdict: verdict.replace("response ", "response: ")),
            verdicts(lambda verdict: verdict.replace("response ", "response")),
            verdicts(lambda verdict: "response" if verdict.startswith("response ") else verdict)),
        ("rows", "responses are not judged: ask flaw(response, instruction) as well"):
            _round(case, judge=False)["rows"],
        ("rows", "the verdict on a response begins with 'response '"):
            verdicts(lambda verdict: verdict.removeprefix("response ")),
        ("rows", "only what was kept comes back: a row for every proposal, with its verdict"):
            [row for row in rows if row[2] == "kept"],
        ("rows", "rows of instructions with a flaw are missing: a row for every proposal"):
            [row for row in rows if row[2] not in ("unfinished", "empty", "length")],
        ("rows", "what accept leaves out is 'similar'"): Alternatives(
            verdicts(lambda verdict: "" if verdict == "similar" else verdict),
            verdicts(lambda verdict: "duplicate" if verdict == "similar" else verdict)),
        ("rows", "a text that there is not is '', not None"): [
            [text or (None if verdict == "unfinished" else text),
             response or (None if verdict == "response unfinished" else response), verdict]
            for text, response, verdict in rows],
        ("rows", "no response is '' too, not None"): Alternatives(
            [[text, response or None, verdict] for text, response, verdict in rows],
            [[text if text else None if verdict == "unfinished" else text, response or None, verdict]
             for text, response, verdict in rows]),
        ("rows", "a response that failed is dropped: it stands in its row beside the verdict"):
            [[text, response if verdict == "kept" else "", verdict] for text, response, verdict in rows],
        ("rows", "nothing is wrong: the verdict is 'kept'"): verdicts(lambda v: "" if v == "kept" else v),
        ("rows", "the rows are in another order: that of the proposals"): Alternatives(
            sorted(rows, key=lambda row: row[2] != "kept"),
            [row for part in (("unfinished", "empty", "length"), ("similar",)) for row in rows if row[2] in part]
            + [row for row in rows if row[2] == "kept" or row[2].startswith("response")]),
    }  # fmt: skip
    return right, mistakes


# 4.5 Rounds that feed the pool ---------------------------------------------------------------------------------------


def self_instruct(people, count, batch, write, run):
    """The answer that the lesson goes on with: rounds until count proposals, each with what earlier ones accepted."""
    machine, rows = [], []
    while len(rows) < count:
        prompts = [write(people, machine) for _ in range(min(batch, count - len(rows)))]
        found = run(prompts, people + machine)
        machine = machine + [text for text, _, verdict in found if feeding(verdict)]
        rows += found
    return rows


VERDICTS = ("kept", "kept", "similar", "length", "response refusal", "kept", "unfinished")


def rounds_cases(rng):
    """A last round that is smaller, one that is not, a single one, a batch that is larger than the count."""
    return [
        {"people": [f"ask {n}" for n in range(people)], "count": count, "batch": batch,
         "verdicts": rng.sample(VERDICTS, len(VERDICTS))}
        for people, count, batch in ((3, 11, 4), (2, 9, 3), (4, 2, 2), (2, 5, 8))
    ]  # fmt: skip


def toy_rounds(case, rounds):
    """What `write` and `run` saw and what came back from rounds(people, count, batch, write, run)."""
    writes, machines, pools, sizes = [], [], [], []

    def write(people, machine):
        writes.append(list(people))
        machines.append(list(machine))
        return f"prompt {len(writes)}"

    def run(prompts, pool):
        first = sum(sizes)
        if len(sizes) > 3 * case["count"] or len(prompts) == 0:
            raise ValueError("run: a round without a prompt, or rounds without end")
        sizes.append(len(prompts))
        pools.append(list(pool))
        verdicts = [case["verdicts"][n % len(case["verdicts"])] for n in range(first, first + len(prompts))]
        return [(f"tell {n}", verdict[:1], verdict) for n, verdict in enumerate(verdicts, first)]

    rows = rounds(case["people"], case["count"], case["batch"], write, run)
    return {
        "prompts of each round": sizes, "prompts written": len(writes),
        "people shown": [texts for place, texts in enumerate(writes) if place == 0 or texts != writes[place - 1]],
        "machine's so far": machines, "pool": pools,
        "rows": [row if isinstance(row, str) else list(row) for row in rows],
    }  # fmt: skip


def drive_rounds(answer, case):
    return toy_rounds(case, answer)


def feeding(verdict):
    """Whether the instruction of a row joins the pool."""
    return verdict == "kept" or verdict.startswith("response ")


def _rounds(feeds=feeding, *, pool=lambda people, machine: people + machine, told=lambda people, machine: (people,
            machine), part=lambda row: row[0], **ways):  # fmt: skip
    """Rounds in which one thing is done differently; ways: last, whole, once, drop, single or again is true."""

    def rounds(people, count, batch, write, run):
        machine, rows = [], []
        while len(rows) < count and not (ways.get("single") and rows):
            size = batch if ways.get("whole") else min(batch, count - len(rows))
            if ways.get("drop") and size < batch:
                break
            once = ways.get("once", False)
            prompts = [write(*told(people, machine)) for _ in range(1 if once else size)] * (size if once else 1)
            found = run(prompts, pool(people, machine))
            rows = rows + found
            new = [part(row) for row in (rows if ways.get("again") else found) if feeds(row[2])]
            machine = new if ways.get("last") else machine + new
        return rows

    return rounds


def rounds_apart(seen):
    """Rows of a mistake: each round's are appended as one list."""
    rows = iter(seen["rows"])
    return [[next(rows) for _ in range(size)] for size in seen["prompts of each round"]]


def expect_rounds(case):
    def of(rounds):
        return toy_rounds(case, rounds)

    def kept(verdict):
        return verdict == "kept"

    right, count = of(self_instruct), case["count"]
    too_many = of(_rounds(whole=True))
    mistakes = {
        "the last round is too large: no more than count proposals in all":
            Alternatives(too_many, too_many | {"rows": too_many["rows"][:count]}),
        "the pool never grows: what a round accepts joins it": of(_rounds(lambda verdict: False)),
        "an instruction whose response failed is known all the same: it joins the pool": of(_rounds(kept)),
        "what was kept joins the pool, too": of(_rounds(lambda verdict: verdict.startswith("response "))),
        "rejected instructions join the pool as well": Alternatives(
            of(_rounds(lambda verdict: True)), of(_rounds(lambda verdict: verdict in ("kept", "similar"))),
            of(_rounds(lambda verdict: verdict != "similar"))),
        "the machine's texts are those of the last round: keep the earlier ones": Alternatives(
            of(_rounds(last=True)), of(_rounds(kept, last=True))),
        "the pool lacks the instructions of people": of(_rounds(pool=lambda people, machine: machine)),
        "the pool lacks the machine's instructions: nobody compares with them":
            of(_rounds(pool=lambda people, machine: people)),
        "the machine's instructions are never shown: hand them to write":
            of(_rounds(told=lambda people, machine: (people, []))),
        "one prompt for a whole round: write one for each proposal": of(_rounds(once=True)),
        "the last round is missing: its batch is smaller": of(_rounds(drop=True)),
        "there is one round alone: go on until there are count rows": of(_rounds(single=True)),
        "the responses join the pool: its texts are instructions": of(_rounds(part=lambda row: row[1])),
        "whole rows join the pool: its texts are instructions": of(_rounds(part=lambda row: row)),
        "earlier rounds' instructions join the pool once more: only the new rows'": of(_rounds(again=True)),
        "write(people, machine): the arguments are turned": of(_rounds(told=lambda people, machine: (machine, people))),
        "write(people, machine): people's instructions alone come first, the machine's second": Alternatives(
            of(_rounds(told=lambda people, machine: (people + machine, []))),
            of(_rounds(told=lambda people, machine: (people + machine, machine)))),
        ("rows", "a list of rounds comes back: one list of rows, which += extends"): rounds_apart(right),
        ("rows", "the machine's instructions come back: return the rows of all proposals"):
            [row[0] for row in right["rows"] if row[2] == "kept" or row[2].startswith("response ")],
        ("rows", "only what was kept comes back: the rows of all proposals"): Alternatives(
            [row for row in right["rows"] if row[2] == "kept"],
            [row for row in right["rows"] if row[2] == "kept" or row[2].startswith("response ")]),
        ("rows", "only the last round's rows come back"): right["rows"][-right["prompts of each round"][-1] :],
        "rejected ones do not count as proposals here: stop at count proposals, not at count kept":
            of(until_kept),
    }  # fmt: skip
    return right, mistakes


def until_kept(people, count, batch, write, run):
    """A mistake: rounds until count instructions are kept."""
    machine, rows = [], []
    while sum(verdict == "kept" for _, _, verdict in rows) < count:
        found = run([write(people, machine) for _ in range(batch)], people + machine)
        machine = machine + [text for text, _, verdict in found if feeding(verdict)]
        rows += found
    return rows


# 4.6 The cost --------------------------------------------------------------------------------------------------------


def dollars(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    """The answer that the lesson goes on with."""
    return pairs / kept * (prompt_tokens + response_tokens) * price / 1e6 + hours * hourly


def dollars_cases(rng):
    """Twice any numbers, and once all calls kept and no finetuning."""
    return [
        {
            "pairs": rng.randint(10_000, 60_000), "kept": kept,
            "prompt_tokens": rng.randint(50, 200), "response_tokens": rng.randint(201, 400),
            "price": rng.choice((2.35, 19.9)), "hours": hours, "hourly": rng.choice((1.45, 3.95)),
        }
        for kept, hours in zip((*rng.sample((0.3, 0.4, 0.7, 0.8), 2), 1.0), (*rng.sample(range(2, 30), 2), 0))
    ]  # fmt: skip


def expect_dollars(case):
    pairs, kept, prompt, response, price, hours, hourly = case.values()
    gpu, tokens = hours * hourly, prompt + response
    calls = pairs / kept
    mistakes = {
        "multiplied by the share kept: to keep n pairs takes n / kept calls": pairs * kept * tokens * price / 1e6 + gpu,
        "kept is added: to keep n pairs takes n / kept calls": pairs * (1 + kept) * tokens * price / 1e6 + gpu,
        "kept is a share, not a percentage": 100 * calls * tokens * price / 1e6 + gpu,
        "1 - kept of n calls are added: it takes n / kept calls": pairs * (2 - kept) * tokens * price / 1e6 + gpu,
        "hours and hourly are added: multiply them": calls * tokens * price / 1e6 + hours + hourly,
        "prompt and response are multiplied: their tokens add up": calls * prompt * response * price / 1e6 + gpu,
        "parentheses are missing around the tokens of a call": calls * prompt + response * price / 1e6 + gpu,
        "prompt or response is paid for kept pairs alone: each call has both": Alternatives(
            *(calls * (a + b * kept) * price / 1e6 + gpu for a, b in ((prompt, response), (response, prompt)))
        ),
        "the price is per million tokens: divide by 1e6": calls * tokens * price + gpu,
        "the price is per million tokens, not per thousand": calls * tokens * price / 1e3 + gpu,
        "the finetuning is divided by the share kept as well": (pairs * tokens * price / 1e6 + gpu) / kept,
    }
    if kept < 1:
        words = "divided by the share rejected: to keep n pairs takes n / kept calls"
        mistakes[words] = pairs / (1 - kept) * tokens * price / 1e6 + gpu
    return calls * tokens * price / 1e6 + gpu, mistakes


# 4.7 The gain of a fourfold ------------------------------------------------------------------------------------------


def gain_per_fourfold(sizes, scores):
    """The answer that the lesson goes on with: the least-squares slope of score against log4 n."""
    return slope([math.log(size, 4) for size in sizes], scores)


def slope(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def gain_cases(rng):
    """Sizes that are no even steps on the axis, once out of order, once two; scores that are no line."""
    sizes = [5, 60, 100], [900, 10, 200, 30], [16, 48]
    return [{"sizes": some, "scores": [n / 100 for n in rng.sample(range(100), len(some))]} for some in sizes]


def expect_gain(case):
    sizes, scores = case["sizes"], case["scores"]
    x = [math.log(size, 4) for size in sizes]
    steps = [(b - a) / (d - c) for a, b, c, d in zip(scores, scores[1:], x, x[1:])]
    right, back = slope(x, scores), slope(scores, x)
    mean_x, mean_y = sum(x) / len(x), sum(scores) / len(scores)
    spread = sum((a - mean_x) ** 2 for a in x)
    mistakes = {
        "natural logarithm: this is the gain of a factor e, take log4": slope([*map(math.log, sizes)], scores),
        "logarithm to base 10: this is the gain of a tenfold, take log4": slope([*map(math.log10, sizes)], scores),
        "no logarithm: fit against log4 of the size": slope(sizes, scores),
        "x and y are exchanged: the score is fitted against log4 of the size": back,
        "this joins the first and the last point: fit a line through all by least squares": (scores[-1] - scores[0])
        / (x[-1] - x[0]),
        "this is the mean of the slopes between neighbours: fit one line to all points": sum(steps) / len(steps),
        "the line is forced through 0: subtract the means": sum(a * b for a, b in zip(x, scores))
        / sum(a * a for a in x),
        "the mean difference of neighbours: the steps on the axis are not all alike": (scores[-1] - scores[0])
        / (len(scores) - 1),
        "this is the correlation, not the slope": math.copysign(math.sqrt(right * back), right),
        "this is where the line crosses 0, not its slope": mean_y - right * mean_x,
        "this is the covariance: divide by the sum of (x - mean x) squared": Alternatives(
            *(right * spread / count for count in (1, len(x), len(x) - 1))
        ),
        "below stands a root too many": right * spread**0.5,
        "the means are missing below: it is the sum of (x - mean x) squared": right * spread / sum(a * a for a in x),
        "the means are missing above: it is the sum of (x - mean x)(y - mean y)": sum(a * b for a, b in zip(x, scores))
        / spread,
        "the logarithm is turned round: log4 n is math.log(n, 4)": slope([1 / a for a in x], scores),
        "a root in the place of log4": slope([size**0.5 for size in sizes], scores),
    }
    return right, mistakes


# 4.8 The data contest -----------------------------------------------------------------------------------------------

LEVELS = (0.16, 0.25, 0.32, 0.37)  # measured: at random 0.15 to 0.20, by one rule 0.28 and 0.36, by both 0.44 and 0.49


def choose(examples):
    """The answer that the lesson goes on with: a sample of what no rule of thumb finds fault with."""

    def words(text):
        return set(re.findall(r"\w+", text.lower()))

    prompts = {prompt for prompt, _ in examples}
    common = Counter(word for prompt in prompts for word in words(prompt))
    seen, good = set(), []
    for number, (prompt, response) in enumerate(examples):
        taken_up = any(common[word] < 40 for word in words(prompt) & words(response))
        ends = response[-1] in ".!?" or " = " in response
        refuses = response.lower().startswith(REFUSALS)
        of_a_benchmark = "\n" in prompt
        if taken_up and ends and not refuses and not of_a_benchmark and prompt not in seen:
            good.append(number)
        seen.add(prompt)
    return random.Random(0).sample(good, 200)


def remark_choice(case, data):
    return data_contest.refused(data) or None


def score_choice(cases, data):
    asked = data_contest.test()
    score = sum(data_contest.assistant_score(chosen, asked) for chosen in data) / len(data)
    return score, "read examples, name what is wrong with them, and leave it out"


EXERCISES = {
    "4.1": Exercise(demonstration_cases, drive_demonstrations, expect_demonstrations, 1, demonstrations,
        remark=remark_demonstrations,
        signature="demonstrations(people: list, machine: list, count: int, rng: any) -> list of str"),
    "4.2": Exercise(flaw_cases, drive_flaw, expect_flaw, 1, flaw,
        signature="flaw(text: any, fewest: int, most: int, prompt: any) -> str"),
    "4.3": Exercise(filter_cases, drive_filter, expect_filter, 2, accepted,
        signature="accepted(proposals: list, pool: list, threshold: number, similarity: function) -> list of int"),
    "4.4": Exercise(round_cases, drive_round, expect_round, 3, one_round,
        signature="one_round(prompts: list, pool: list, propose: function, accept: function, answer: function,"
        " flaw: function) -> list"),
    "4.5": Exercise(rounds_cases, drive_rounds, expect_rounds, 2, self_instruct,
        signature="self_instruct(people: list, count: int, batch: int, write: function, run: function) -> list"),
    "4.6": Exercise(dollars_cases, None, expect_dollars, 1, dollars,
        signature="dollars(pairs: number, kept: number, prompt_tokens: number, response_tokens: number, price:"
        " number, hours: number, hourly: number) -> number"),
    "4.7": Exercise(gain_cases, None, expect_gain, 2, gain_per_fourfold,
        signature="gain_per_fourfold(sizes: list, scores: list) -> number"),
    "4.8": Exercise(lambda rng: ["the 2,000 examples"], lambda answer, case: answer(data_contest.examples()), None, 4,
        choose, signature="choose(examples: list) -> list of int", remark=remark_choice, score=score_choice,
        levels=LEVELS, ranked=True),
}  # fmt: skip
