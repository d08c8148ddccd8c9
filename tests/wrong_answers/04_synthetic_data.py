"""Answers to lesson 04 as students hand them in: wrong ones with the words of their diagnosis, and right ones."""

import math
import random
import statistics

# 4.1


def drawn(people_of, machine_of, mix=lambda shown, rng: rng.shuffle(shown)):
    """people_of(people, number, rng) and machine_of(machine, count, rng) -> texts; mix changes the list."""

    def answer(people, machine, count, rng):
        few = machine_of(machine, count, rng)
        shown = [*few, *people_of(people, count - len(few), rng)]
        mix(shown, rng)
        return shown

    return answer


def sampled(texts, number, rng):
    return rng.sample(texts, number)


def two(machine, count, rng):
    return rng.sample(machine, min(2, len(machine), count - 1))


def out_of_one_pool(people, machine, count, rng):
    return rng.sample(people + machine, count)


def one_of_the_machine(machine, count, rng):
    return rng.sample(machine, min(1, len(machine)))


def by_index(people, machine, count, rng):
    few = min(2, count - 1, len(machine))
    order = sorted(range(count), key=lambda place: rng.random())
    texts = [machine[n] for n in rng.sample(range(len(machine)), few)]
    texts += [people[n] for n in rng.sample(range(len(people)), count - few)]
    return [texts[place] for place in order]


def one_by_one(people, machine, count, rng):
    left, few, shown = list(people), list(machine), []
    while len(shown) < min(2, len(machine), count - 1):
        shown.append(few.pop(rng.randrange(len(few))))
    while len(shown) < count:
        shown.append(left.pop(rng.randrange(len(left))))
    return rng.sample(shown, count)


def shuffles_the_lists(people, machine, count, rng):
    rng.shuffle(people), rng.shuffle(machine)
    few = machine[: min(2, count - 1)]
    shown = few + people[: count - len(few)]
    rng.shuffle(shown)
    return shown


# 4.2

REFUSALS = ("i am sorry", "i'm sorry", "i cannot", "i can not", "i do not know", "as an ai")


def judged(*rules, last=""):
    """rules: (verdict, rule(text, fewest, most, prompt)); the first that holds."""

    def answer(text, fewest, most, prompt=None):
        if text is None:
            return "unfinished"
        return next((verdict for verdict, rule in rules if rule(text, fewest, most, prompt)), last)

    return answer


EMPTY = ("empty", lambda text, fewest, most, prompt: not text.strip())
LENGTH = ("length", lambda text, fewest, most, prompt: not fewest <= len(text.split()) <= most)
REFUSAL = ("refusal", lambda text, f, m, prompt: prompt is not None and text.strip().lower().startswith(REFUSALS))
ECHO = ("echo", lambda text, f, m, prompt: prompt is not None and text.strip().lower() == prompt.strip().lower())


def rules_of_strings(text, fewest, most, prompt=None):
    words = [] if text is None else text.casefold().split()
    said = " ".join(words)
    flaws = {
        "unfinished": text is None,
        "empty": not words,
        "length": len(words) < fewest or len(words) > most,
        "refusal": prompt is not None and any(said.startswith(words) for words in REFUSALS),
        "echo": prompt is not None and said == " ".join((prompt or "").casefold().split()),
    }
    return next((name for name, found in flaws.items() if found), "")


def by_match(text, fewest, most, prompt=None):
    if text is None:
        return "unfinished"
    text = text.strip().lower()
    match len(text.split()):
        case 0:
            return "empty"
        case words if words < fewest or words > most:
            return "length"
    if prompt is None:
        return ""
    return "refusal" if any(text[: len(r)] == r for r in REFUSALS) else "echo" if text == prompt.strip().lower() else ""


def overwritten(text, fewest, most, prompt=None):
    found = ""
    if text is None:
        return "unfinished"
    for verdict, rule in (EMPTY, LENGTH, REFUSAL, ECHO):
        if rule(text, fewest, most, prompt):
            found = verdict
    return found


def strips_none(text, fewest, most, prompt=None):
    return judged(EMPTY, LENGTH, REFUSAL, ECHO)(text.strip(), fewest, most, prompt)


def echo_without_prompt(text, fewest, most, prompt=None):
    if text is None:
        return "unfinished"
    if text.strip() and text.strip().lower() == prompt.strip().lower():
        return "echo"
    return judged(EMPTY, LENGTH, REFUSAL)(text, fewest, most, prompt)


# 4.3


def filtered(rule, grow):
    def answer(proposals, pool, threshold, similarity):
        known, numbers = list(pool), []
        for number, text in enumerate(proposals):
            new = rule([similarity(text, other) for other in known], threshold)
            if new:
                numbers.append(number)
            if grow(new):
                known.append(text)
        return numbers

    return answer


def changes_the_pool(proposals, pool, threshold, similarity):
    numbers = []
    for number, text in enumerate(proposals):
        if all(similarity(text, other) < threshold for other in pool):
            pool.append(text)
            numbers.append(number)
    return numbers


def only_repetitions(proposals, pool, threshold, similarity):
    return [number for number, text in enumerate(proposals) if text not in pool + proposals[:number]]


def from_one(proposals, pool, threshold, similarity):
    return [number + 1 for number in highest_below(proposals, pool, threshold, similarity)]


def behind_the_pool(proposals, pool, threshold, similarity):
    return [number + len(pool) for number in highest_below(proposals, pool, threshold, similarity)]


def the_texts(proposals, pool, threshold, similarity):
    return [proposals[number] for number in highest_below(proposals, pool, threshold, similarity)]


def flags(proposals, pool, threshold, similarity):
    numbers = highest_below(proposals, pool, threshold, similarity)
    return [number in numbers for number in range(len(proposals))]


def until_rejected(proposals, pool, threshold, similarity):
    numbers = highest_below(proposals, pool, threshold, similarity)
    return [number for place, number in enumerate(numbers) if number == place]


def one_after_the_other(proposals, pool, threshold, similarity):
    def rest(number, known):
        if number == len(proposals):
            return ()
        new = not any(similarity(other, proposals[number]) >= threshold for other in known)
        return (number,) * new + rest(number + 1, [*known, *proposals[number : number + new]])

    return rest(0, pool)


def highest_below(proposals, pool, threshold, similarity):
    numbers = []
    for number in range(len(proposals)):
        others = [*pool, *(proposals[other] for other in numbers)]
        if max(similarity(proposals[number], other) for other in others) < threshold:
            numbers.append(number)
    return numbers


def below_all(values, threshold):
    return all(value < threshold for value in values)


# 4.4


def in_a_round(accept_of=None, verdict_of=None, rows_of=None, propose_of=None, answer_of=None):
    """A right round in which one step is replaced."""

    def answer(prompts, pool, propose, accept, respond, flaw):
        texts = (propose_of or (lambda propose, prompts: propose(prompts)))(propose, prompts)
        new = (accept_of or sound_and_new)(texts, pool, accept, flaw)
        responses = (answer_of or (lambda respond, asked: respond(asked)))(respond, [texts[n] for n in new])
        by_number, rows = dict(zip(new, responses)), []
        for n, text in enumerate(texts):
            if n not in by_number:
                rows.append((text or "", "", flaw(text) or "similar"))
            else:
                verdict = (verdict_of or judged_response)(by_number[n], text, flaw)
                rows.append((text, by_number[n] or "", verdict))
        return rows_of(rows) if rows_of else rows

    return answer


def sound_and_new(texts, pool, accept, flaw):
    sound = [n for n, text in enumerate(texts) if flaw(text) == ""]
    return [sound[place] for place in accept([texts[n] for n in sound], pool)]


def judged_response(response, text, flaw):
    return "response " + flaw(response, text) if flaw(response, text) else "kept"


def all_offered(texts, pool, accept, flaw):
    return [n for n in accept(texts, pool) if not flaw(texts[n])]


def offered_with_blanks(texts, pool, accept, flaw):
    return [n for n in accept([text or "" for text in texts], pool) if not flaw(texts[n])]


def one_at_a_time(texts, pool, accept, flaw):
    return [n for n, text in enumerate(texts) if not flaw(text) and accept([text], pool)]


def places_taken_for_numbers(texts, pool, accept, flaw):
    return accept([text for text in texts if not flaw(text)], pool)


def without_the_pool(texts, pool, accept, flaw):
    sound = [n for n, text in enumerate(texts) if not flaw(text)]
    return [sound[place] for place in accept([texts[n] for n in sound], [])]


def all_sound(texts, pool, accept, flaw):
    accept([text for text in texts if not flaw(text)], pool)
    return [n for n, text in enumerate(texts) if not flaw(text)]


def with_a_growing_pool(texts, pool, accept, flaw):
    pool += [text for text in texts if text]
    return sound_and_new(texts, pool, accept, flaw)


def by_text(prompts, pool, propose, accept, respond, flaw):
    texts, rows = propose(prompts), []
    sound = [text for text in texts if not flaw(text)]
    new = [sound[place] for place in accept(sound, pool)]
    said = dict(zip(new, respond(new)))
    for text in texts:
        verdict = judged_response(said[text], text, flaw) if text in said else flaw(text) or "similar"
        rows.append((text or "", said.get(text) or "", verdict))
    return rows


def with_iterators(prompts, pool, propose, accept, respond, flaw):
    rows = [[text or "", "", flaw(text)] for text in propose(prompts)]
    left = [row for row in rows if not row[2]]
    new = dict.fromkeys(accept([row[0] for row in left], pool))
    told = iter(respond([left[place][0] for place in new]) if new else ())
    for place, row in enumerate(left):
        if place not in new:
            row[2] = "similar"
            continue
        response = next(told)
        row[1], found = response or "", flaw(response, row[0])
        row[2] = f"response {found}" if found else "kept"
    return rows


def with_dictionaries(prompts, pool, propose, accept, respond, flaw):
    texts = list(enumerate(propose(prompts)))
    verdicts = {n: flaw(text) for n, text in texts}
    sound = [(n, text) for n, text in texts if not verdicts[n]]
    places = set(accept([text for _, text in sound], pool))
    new = [pair for place, pair in enumerate(sound) if place in places]
    verdicts |= {n: "similar" for place, (n, _) in enumerate(sound) if place not in places}
    said = {n: text for (n, _), text in zip(new, respond([text for _, text in new]))}
    for n, text in new:
        verdicts[n] = ("response " + flaw(said[n], text)) if flaw(said[n], text) else "kept"
    return [[text or "", said.get(n) or "", verdicts[n]] for n, text in texts]


# 4.5


def fed(verdict):
    return verdict == "kept" or verdict.startswith("response ")


def rounds(feeds=fed, size=min, pool=lambda p, m: p + m, shown=lambda p, m: (p, m), part=lambda row: row[0]):
    def answer(people, count, batch, write, run):
        machine, rows = [], []
        while len(rows) < count:
            prompts = [write(*shown(people, machine)) for _ in range(size(batch, count - len(rows)))]
            found = run(prompts, pool(people, machine))
            machine = machine + [part(row) for row in found if feeds(row[2])]
            rows += found
        return rows

    return answer


def once_more(people, count, batch, write, run):
    machine, rows = [], []
    while len(rows) < count:
        rows = rows + run([write(people, machine) for _ in range(min(batch, count - len(rows)))], people + machine)
        machine = machine + [row[0] for row in rows if fed(row[2])]
    return rows


def forgets(people, count, batch, write, run):
    machine, rows = [], []
    while len(rows) < count:
        found = run([write(people, machine) for _ in range(min(batch, count - len(rows)))], people + machine)
        machine = [row[0] for row in found if row[2] == "kept" or row[2].startswith("response ")]
        rows += found
    return rows


def one_prompt(people, count, batch, write, run):
    machine, rows = [], []
    while len(rows) < count:
        size = min(batch, count - len(rows))
        found = run([write(people, machine)] * size, people + machine)
        machine += [row[0] for row in found if row[2] == "kept" or row[2].startswith("response ")]
        rows += found
    return rows


def into_people(people, count, batch, write, run):
    rows = []
    while len(rows) < count:
        found = run([write(people, []) for _ in range(min(batch, count - len(rows)))], people)
        people += [row[0] for row in found if row[2] == "kept" or row[2].startswith("response ")]
        rows += found
    return rows


def never_shown(people, count, batch, write, run):
    machine, rows = [], []
    while len(rows) < count:
        found = run([write(people, []) for _ in range(min(batch, count - len(rows)))], people + machine)
        machine += [row[0] for row in found if row[2] == "kept" or row[2].startswith("response ")]
        rows += found
    return rows


def kept_rows(people, count, batch, write, run):
    return [row for row in rounds()(people, count, batch, write, run) if row[2] == "kept"]


def last_rows(people, count, batch, write, run):
    rows, machine, made = [], [], 0
    while made < count:
        rows = run([write(people, machine) for _ in range(min(batch, count - made))], people + machine)
        machine += [row[0] for row in rows if row[2] == "kept" or row[2].startswith("response ")]
        made += len(rows)
    return rows


def for_loop(people, count, batch, write, run):
    rows, pool = [], list(people)
    for start in range(0, count, batch):
        prompts = [write(people, pool[len(people) :]) for _ in range(start, min(start + batch, count))]
        for row in run(prompts, list(pool)):
            rows.append(row)
            if row[2] not in ("unfinished", "empty", "length", "similar"):
                pool.append(row[0])
    return rows


def recursive(people, count, batch, write, run, machine=()):
    if count <= 0:
        return []
    prompts = [write(people, list(machine)) for _ in range(min(batch, count))]
    found = list(run(prompts, [*people, *machine]))
    new = [text for text, _, verdict in found if verdict == "kept" or verdict.startswith("response")]
    return found + recursive(people, count - len(prompts), batch, write, run, (*machine, *new))


# 4.6


def paid(rule):
    return lambda pairs, kept, prompt_tokens, response_tokens, price, hours, hourly: rule(
        pairs / kept, pairs, prompt_tokens, response_tokens, price / 1e6, hours * hourly
    )


def step_by_step(pairs, kept, prompt_tokens, response_tokens, price, hours, hourly):
    tokens = pairs * (prompt_tokens + response_tokens)
    finetuning = hours * hourly
    return price * tokens / kept / 1_000_000 + finetuning


# 4.7


def line(transform):
    return lambda sizes, scores: statistics.linear_regression([transform(size) for size in sizes], scores).slope


def exchanged(sizes, scores):
    return statistics.linear_regression(scores, [math.log(size, 4) for size in sizes]).slope


def ends(sizes, scores):
    return (scores[-1] - scores[0]) / math.log(sizes[-1] / sizes[0], 4)


def through_zero(sizes, scores):
    return statistics.linear_regression([math.log(size, 4) for size in sizes], scores, proportional=True).slope


def log4(sizes):
    return [math.log(size, 4) for size in sizes]


def sorts_the_scores(sizes, scores):
    scores.sort()
    return statistics.linear_regression(log4(sizes), scores).slope


def by_sums(sizes, scores):
    x, count = log4(sizes), len(sizes)
    above = count * sum(a * b for a, b in zip(x, scores)) - sum(x) * sum(scores)
    return above / (count * sum(a * a for a in x) - sum(x) ** 2)


def even_steps(sizes, scores):
    return statistics.mean(b - a for a, b in zip(scores, scores[1:]))


def neighbours(sizes, scores):
    x = [math.log(size, 4) for size in sizes]
    return statistics.mean((b - a) / (d - c) for a, b, c, d in zip(scores, scores[1:], x, x[1:]))


# 4.8


def first_numbers(count, start=0):
    return lambda examples: list(range(start, start + count))


def benchmark_items(examples):
    return [number for number, (prompt, _) in enumerate(examples) if "\n" in prompt][:200]


def the_packages_backwards(examples):
    from ptlearn.course.exercise import exercise

    return exercise("4.8").reference(examples)[::-1]


WRONG = {
    "4.1": [
        (drawn(sampled, lambda machine, count, rng: []), "none of the machine's"),
        (drawn(sampled, lambda machine, count, rng: rng.sample(machine, min(3, len(machine), count - 1))), "at most 2"),
        (drawn(sampled, one_of_the_machine), "1 of 5 texts are the machine's"),
        (drawn(sampled, lambda machine, count, rng: rng.sample(machine, min(2, len(machine)))), "at least one is"),
        (out_of_one_pool, "varies"),
        (drawn(sampled, two, lambda shown, rng: None), "shuffle"),
        (drawn(lambda people, number, rng: rng.choices(people, k=number), two), "twice in a list"),
        (drawn(lambda people, number, rng: people[:number], two), "never drawn"),
        (drawn(sampled, lambda machine, count, rng: machine[-2:][: count - 1]), "never drawn"),
        (drawn(sampled, two, lambda shown, rng: random.Random().shuffle(shown)), "another result from the same rng"),
        (drawn(lambda people, number, rng: rng.sample(people, number + 1), two), "texts come back"),
        (shuffles_the_lists, "changed in place"),
        (lambda people, machine, count, rng: by_index(people, machine, count, random.Random(0)), "whatever rng is"),
    ],
    "4.2": [
        (judged(EMPTY, ("length", lambda t, f, m, p: not f <= len(t) <= m), REFUSAL, ECHO), "letters are counted"),
        (judged(EMPTY, ("length", lambda t, f, m, p: not f < len(t.split()) < m), REFUSAL, ECHO), "allowed themselves"),
        (judged(EMPTY, ("length", lambda t, f, m, p: len(t.split()) > m), REFUSAL, ECHO), "too short as well"),
        (judged(EMPTY, ("length", lambda t, f, m, p: len(t.split()) < f), REFUSAL, ECHO), "too long as well"),
        (
            judged(
                EMPTY,
                LENGTH,
                ("refusal", lambda t, f, m, p: p is not None and t.strip().startswith(REFUSALS)),
                ("echo", lambda t, f, m, p: p is not None and t.strip() == p.strip()),
            ),
            "capital letters",
        ),
        (judged(("empty", lambda t, f, m, p: t == ""), LENGTH, REFUSAL, ECHO), "white space alone"),
        (
            judged(
                EMPTY,
                LENGTH,
                ("refusal", lambda t, f, m, p: p is not None and any(r in t.lower() for r in REFUSALS)),
                ECHO,
            ),
            "begins the text",
        ),
        (
            judged(EMPTY, LENGTH, ("refusal", lambda t, f, m, p: t.strip().lower().startswith(REFUSALS)), ECHO),
            "an instruction cannot refuse",
        ),
        (judged(EMPTY, LENGTH, ECHO), "refusals are missing"),
        (judged(EMPTY, LENGTH, REFUSAL), "echoes are missing"),
        (judged(EMPTY, REFUSAL, LENGTH, ECHO), "the length comes before"),
        (judged(EMPTY, LENGTH, ECHO, REFUSAL), "a refusal comes before an echo"),
        (judged(EMPTY, LENGTH, REFUSAL, ECHO, last="kept"), "the empty string"),
        (judged(LENGTH, EMPTY, REFUSAL, ECHO), "after the empty text"),
        (
            judged(EMPTY, LENGTH, REFUSAL, ("echo", lambda t, f, m, p: bool(p) and p.lower() in t.lower())),
            "not a text that holds it",
        ),
        (
            judged(
                EMPTY,
                LENGTH,
                ("refusal", lambda t, f, m, p: p is not None and t.strip().lower().startswith(REFUSALS[0])),
                ECHO,
            ),
            "any of REFUSALS",
        ),
        (judged(EMPTY, LENGTH, REFUSAL, ("echo", lambda t, f, m, p: t == p)), "an echo: capital letters"),
        (
            judged(
                EMPTY,
                ("short", lambda t, f, m, p: len(t.split()) < f),
                ("long", lambda t, f, m, p: len(t.split()) > m),
                REFUSAL,
                ECHO,
            ),
            "both 'length'",
        ),
        (lambda text, fewest, most, prompt=None: by_match(text or None, fewest, most, prompt), "None alone"),
        (overwritten, "not the last"),
        (strips_none, "AttributeError"),
        (echo_without_prompt, "a refusal comes before an echo"),
    ],
    "4.3": [
        (filtered(below_all, lambda new: False), "given pool alone"),
        (filtered(lambda values, threshold: max(values) <= threshold, lambda new: new), "equal to the threshold"),
        (filtered(lambda values, threshold: min(values) < threshold, lambda new: new), "for every one"),
        (filtered(below_all, lambda new: True), "rejected proposals join"),
        (changes_the_pool, "pool was changed in place"),
        (only_repetitions, "as if threshold were 1"),
        (from_one, "with 1 added"),
        (filtered(lambda values, threshold: min(values) > threshold, lambda new: new), "comparison is turned"),
        (filtered(lambda values, threshold: sum(values) / len(values) < threshold, lambda new: new), "mean similarity"),
        (filtered(lambda values, threshold: values[-1] < threshold, lambda new: new), "one text alone"),
        (filtered(lambda values, threshold: True, lambda new: new), "all are accepted"),
        (behind_the_pool, "pool is counted as well"),
        (the_texts, "these are the texts"),
        (
            lambda proposals, pool, threshold, similarity: highest_below(proposals, pool, 0.7, similarity),
            "not always 0.7",
        ),
        (flags, "is a bool, expected a whole number"),
        (until_rejected, "ends at the first rejected"),
    ],
    "4.4": [
        (in_a_round(all_offered), "texts with a flaw are offered"),
        (in_a_round(offered_with_blanks), "texts with a flaw are offered"),
        (in_a_round(one_at_a_time), "one at a time"),
        (in_a_round(places_taken_for_numbers), "places in the list"),
        (in_a_round(without_the_pool), "hand it the pool"),
        (in_a_round(all_sound), "are answered too"),
        (in_a_round(with_a_growing_pool), "pool"),
        (in_a_round(verdict_of=lambda response, text, flaw: "kept"), "responses are not judged"),
        (in_a_round(verdict_of=lambda response, text, flaw: flaw(response, text) or "kept"), "begins with 'response '"),
        (in_a_round(rows_of=lambda rows: [row for row in rows if row[2] == "kept"]), "a row for every proposal"),
        (
            in_a_round(rows_of=lambda rows: [(*row[:2], row[2] if row[2] != "similar" else "") for row in rows]),
            "is 'similar'",
        ),
        (in_a_round(rows_of=lambda rows: sorted(rows, key=lambda row: row[2] != "kept")), "in another order"),
        (in_a_round(rows_of=lambda rows: [(a, b or None, c) for a, b, c in rows]), "not None"),
        (
            in_a_round(
                verdict_of=lambda response, text, flaw: flaw(response) and f"response {flaw(response)}" or "kept"
            ),
            "judged as instructions",
        ),
        (in_a_round(verdict_of=lambda response, text, flaw: judged_response(text, response, flaw)), "are turned"),
        (
            in_a_round(rows_of=lambda rows: [row for row in rows if not row[2].startswith("response ")]),
            "rows of responses with a flaw",
        ),
        (in_a_round(rows_of=lambda rows: [row for row in rows if row[0]]), "rows of proposals without a text"),
        (
            in_a_round(rows_of=lambda rows: [(*row[:2], row[2].replace("response ", "response: ")) for row in rows]),
            "without a colon",
        ),
        (by_text, "two proposals may have the same text"),
        (in_a_round(propose_of=lambda propose, prompts: [propose([prompt])[0] for prompt in prompts]), "each prompt"),
        (in_a_round(answer_of=lambda respond, asked: [respond([text])[0] for text in asked]), "each instruction alone"),
    ],
    "4.5": [
        (rounds(size=lambda batch, left: batch), "last round is too large"),
        (rounds(feeds=lambda verdict: False), "never grows"),
        (rounds(feeds=lambda verdict: verdict == "kept"), "whose response failed"),
        (rounds(feeds=lambda verdict: True), "rejected instructions join"),
        (forgets, "of the last round"),
        (rounds(pool=lambda people, machine: machine), "lacks the instructions of people"),
        (rounds(pool=lambda people, machine: people), "nobody compares"),
        (never_shown, "never shown"),
        (one_prompt, "one prompt for a whole round"),
        (into_people, "people"),
        (kept_rows, "rows of all proposals"),
        (last_rows, "only the last round's rows"),
        (rounds(shown=lambda people, machine: (machine, people)), "arguments are turned"),
        (rounds(shown=lambda people, machine: (people + machine, machine)), "the machine's second"),
        (rounds(part=lambda row: row[1]), "the responses join the pool"),
        (rounds(part=lambda row: row), "whole rows join the pool"),
        (once_more, "once more"),
        (
            lambda people, count, batch, write, run: rounds()(people, min(count, batch), batch, write, run),
            "one round alone",
        ),
    ],
    "4.6": [
        (paid(lambda calls, pairs, p, r, price, gpu: pairs * (p + r) * price + gpu), "as if kept were 1"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price), "as if hours were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * r * price + gpu), "as if prompt_tokens were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p * price + gpu), "as if response_tokens were 0"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price * 1e6 + gpu), "divide by 1e6"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * (p + r) * price * 1e3 + gpu), "not per thousand"),
        (
            paid(lambda calls, pairs, p, r, price, gpu: (pairs * (p + r) * price + gpu) * calls / pairs),
            "divided by the share",
        ),
        (paid(lambda calls, pairs, p, r, price, gpu: pairs * pairs / calls * (p + r) * price + gpu), "multiplied by"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p + r * price + gpu), "parentheses are missing"),
        (paid(lambda calls, pairs, p, r, price, gpu: calls * p * r * price + gpu), "their tokens add up"),
        (paid(lambda calls, pairs, p, r, price, gpu: (pairs * p + calls * r) * price + gpu), "kept pairs alone"),
        (paid(lambda calls, pairs, p, r, price, gpu: 100 * calls * (p + r) * price + gpu), "not a percentage"),
        (paid(lambda calls, pairs, p, r, price, gpu: round(calls * (p + r) * price + gpu)), "whole numbers"),
        (paid(lambda calls, pairs, p, r, price, gpu: (calls * (p + r) * price, gpu)), "expected a number"),
        (paid(lambda calls, pairs, p, r, price, gpu: f"${calls * (p + r) * price + gpu:.2f}"), "is a str"),
    ],
    "4.7": [
        (line(math.log), "factor e"),
        (line(math.log2), "half as large"),
        (line(math.log10), "tenfold"),
        (line(float), "no logarithm"),
        (exchanged, "exchanged"),
        (ends, "first and the last"),
        (through_zero, "through 0"),
        (even_steps, "not all alike"),
        (neighbours, "between neighbours"),
        (lambda sizes, scores: statistics.correlation(log4(sizes), scores), "correlation"),
        (lambda sizes, scores: statistics.linear_regression(log4(sizes), scores).intercept, "crosses 0"),
        (lambda sizes, scores: statistics.covariance(log4(sizes), scores), "covariance"),
        (line(lambda size: math.log(4, size)), "logarithm is turned round"),
        (line(math.sqrt), "a root in the place"),
        (lambda sizes, scores: -line(lambda size: math.log(size, 4))(sizes, scores), "sign turned"),
        (sorts_the_scores, "scores was changed in place"),
    ],
    "4.8": [
        (first_numbers(199), "199 numbers: expected 200"),
        (lambda examples: [7] * 200, "stand there twice"),
        (first_numbers(200, 1900), "no number of an example"),
        (lambda examples: examples[:200], "list of whole numbers"),
        (benchmark_items, "0 of 4 points"),
    ],
}

RIGHT = {
    "4.1": [by_index, one_by_one],
    "4.2": [rules_of_strings, by_match, judged(EMPTY, LENGTH, REFUSAL, ECHO)],
    "4.3": [highest_below, one_after_the_other],
    "4.4": [in_a_round(), with_iterators, with_dictionaries],
    "4.5": [rounds(), for_loop, recursive],
    "4.6": [step_by_step],
    "4.7": [line(lambda size: math.log2(size) / 2), by_sums],
    "4.8": [the_packages_backwards],
}
