"""Typical wrong answers to the exercises of lesson 02, and right ones written differently."""

from collections import Counter
from functools import partial
from itertools import takewhile

import torch

from ptlearn.lm.attention import output_projections

EQUALS, LINE = "{input} = {output}", "\n"


def filled(template, given, wanted):
    return template.replace("{input}", given).replace("{output}", wanted)


# 2.1 ------------------------------------------------------------------------------------------------------------------


def trailing_space(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in [*demonstrations, (query, "")])


def bare_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(filled(template, *pair) for pair in demonstrations), query])


def placeholder(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair) for pair in demonstrations]
    return separator.join([*shown, template.replace("{input}", query)])


def no_separator_at_the_end(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in demonstrations) + filled(template, query, "").rstrip()


def line_break_at_the_end(demonstrations, query, template=EQUALS, separator=LINE):
    return "".join(filled(template, *pair).rstrip(" ") + separator for pair in [*demonstrations, (query, "")])


def query_first(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([filled(template, query, "").rstrip(), *(filled(template, *pair) for pair in demonstrations)])


def reversed_order(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair) for pair in reversed(demonstrations)]
    return separator.join([*shown, filled(template, query, "").rstrip()])


def always_equals(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(f"{given} = {wanted}" for given, wanted in demonstrations), f"{query} ="])


def always_a_line_break(demonstrations, query, template=EQUALS, separator=LINE):
    return "\n".join([*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()])


def inputs_alone(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, given, "").rstrip() for given in [*(d[0] for d in demonstrations), query])


def grown_line_by_line(demonstrations, query, template=EQUALS, separator=LINE):
    prompt = ""
    for given, wanted in demonstrations:
        prompt += template.format(input=given, output=wanted) + separator
    return prompt + template.split("{output}")[0].format(input=query).strip()


# 2.2 ------------------------------------------------------------------------------------------------------------------


def pairwise(rule):
    return lambda continuations, answers: [rule(text, answer) for text, answer in zip(continuations, answers)]


def by_index(continuations, answers):
    verdicts = [False] * len(answers)
    for place, text in enumerate(continuations):
        verdicts[place] = text.split("\n", 1)[0].split() == answers[place].split()
    return verdicts


def with_numbers(continuations, answers):
    return [int(right) for right in by_index(continuations, answers)]


# 2.7 ------------------------------------------------------------------------------------------------------------------


def last_label(demonstrations, query, kind):
    return demonstrations[-1][1]


def majority(demonstrations, query, kind):
    return Counter(label for _, label in demonstrations).most_common(1)[0][0]


def first_match(demonstrations, query, kind):
    return next((label for word, label in demonstrations if kind[word] == kind[query]), "")


def next_label(demonstrations, query, kind):
    found = ""
    for (word, _), (_, label) in zip(demonstrations, demonstrations[1:]):
        if kind[word] == kind[query]:
            found = label
    same = [place for place, (word, _) in enumerate(demonstrations) if kind[word] == kind[query]]
    return "" if same and same[-1] == len(demonstrations) - 1 else found


def guess_when_unknown(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] == kind[query]), demonstrations[-1][1])


def none_when_unknown(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] == kind[query]), None)


def the_word(demonstrations, query, kind):
    return next((word for word, _ in demonstrations[::-1] if kind[word] == kind[query]), "")


def the_kind(demonstrations, query, kind):
    return kind[query]


def the_same_word(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if word == query), "")


def backwards(demonstrations, query, kind):
    for word, label in reversed(demonstrations):
        if kind[word] == kind[query]:
            return label
    return ""


# 2.13 -----------------------------------------------------------------------------------------------------------------


def subtracts(probabilities, content_free):
    return probabilities - content_free.mean(0)


def no_new_sum(probabilities, content_free):
    return probabilities / content_free.mean(0)


def multiplies(probabilities, content_free):
    weighted = probabilities * content_free.mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def averages_late(probabilities, content_free):
    weighted = probabilities[:, None] / content_free
    return (weighted / weighted.sum(-1, keepdim=True)).mean(1)


def averages_the_inverse(probabilities, content_free):
    weighted = probabilities * (1 / content_free).mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def uses_the_test_set(probabilities, content_free):
    weighted = probabilities / probabilities.mean(0)
    return weighted / weighted.sum(1, keepdim=True)


def uses_the_first(probabilities, content_free):
    weighted = probabilities / content_free[0]
    return weighted / weighted.sum(1, keepdim=True)


def normalizes_the_inputs(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.sum(0, keepdim=True)


def takes_a_softmax(probabilities, content_free):
    return (probabilities / content_free.mean(0)).softmax(-1)


def labels_alone(probabilities, content_free):
    return (probabilities / content_free.mean(0)).argmax(-1)


def unchanged(probabilities, content_free):
    return probabilities


def in_logarithms(probabilities, content_free):
    return (probabilities.log() - content_free.mean(0).log()).softmax(-1)


# 2.12 -----------------------------------------------------------------------------------------------------------------


def columns(labels, shares):
    """(labels (contexts, places) bool, shares (contexts, 1)) as tensors."""
    return torch.tensor(labels).bool(), torch.tensor(shares, dtype=torch.float64)[:, None]


def group_means(labels, shares):
    where, values = columns(labels, shares)
    return (values * where).sum(0) / where.sum(0), (values * ~where).sum(0) / (~where).sum(0)


def right_with_tensors(labels, shares):
    positive, negative = group_means(labels, shares)
    return positive - negative


def by_a_loop(labels, shares):
    pulls = []
    for place in range(len(labels[0])):
        groups = {True: [], False: []}
        for row, share in zip(labels, shares):
            groups[bool(row[place])].append(share)
        pulls.append(sum(groups[True]) / len(groups[True]) - sum(groups[False]) / len(groups[False]))
    return pulls


def from_the_query_backwards(labels, shares):
    return right_with_tensors(labels, shares).flip(0)


def turned(labels, shares):
    return -right_with_tensors(labels, shares)


def positive_alone(labels, shares):
    return group_means(labels, shares)[0]


def against_all(labels, shares):
    return group_means(labels, shares)[0] - sum(shares) / len(shares)


def sums(labels, shares):
    where, values = columns(labels, shares)
    return (values * where).sum(0) - (values * ~where).sum(0)


def divided_by_all(labels, shares):
    return sums(labels, shares) / len(shares)


def last_place(labels, shares):
    return right_with_tensors(labels, shares)[-1]


# written after the checks ---------------------------------------------------------------------------------------------


def exchanged(demonstrations, query, template=EQUALS, separator=LINE):
    shown = [filled(template, *pair[::-1]) for pair in demonstrations]
    return separator.join([*shown, filled(template, query, "").rstrip()])


def one_missing(demonstrations, query, template=EQUALS, separator=LINE):
    return grown_line_by_line(demonstrations[1:], query, template, separator)


def no_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in demonstrations)


def plain_query(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join([*(filled(template, *pair) for pair in demonstrations), f"{query} ="])


def with_commas(demonstrations, query, template=EQUALS, separator=LINE):
    return ", ".join([*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()])


def in_a_list(demonstrations, query, template=EQUALS, separator=LINE):
    return [*(filled(template, *pair) for pair in demonstrations), filled(template, query, "").rstrip()]


def in_alphabet(demonstrations, query, template=EQUALS, separator=LINE):
    return grown_line_by_line(sorted(demonstrations), query, template, separator)


def always_a_separator(demonstrations, query, template=EQUALS, separator=LINE):
    shown = separator.join(filled(template, *pair) for pair in demonstrations)
    return shown + separator + filled(template, query, "").rstrip()


def by_one_join(demonstrations, query, template=EQUALS, separator=LINE):
    return separator.join(filled(template, *pair) for pair in [*demonstrations, (query, "")]).rstrip(" ")


def answers_anything(continuations, answers):
    return [text.split("\n")[0].split() in [answer.split() for answer in answers] for text in continuations]


def the_first_answer(continuations, answers):
    return by_index(continuations, answers[:1] * len(answers))


def all_of_them(continuations, answers):
    return all(by_index(continuations, answers))


def how_many(continuations, answers):
    return sum(by_index(continuations, answers))


def other_kind(demonstrations, query, kind):
    return next((label for word, label in demonstrations[::-1] if kind[word] != kind[query]), "")


def gives_up_early(demonstrations, query, kind):
    for word, label in reversed(demonstrations):
        return label if kind[word] == kind[query] else ""
    return ""


def label_before(demonstrations, query, kind):
    same = [place for place, (word, _) in enumerate(demonstrations) if kind[word] == kind[query]]
    return demonstrations[same[-1] - 1][1] if same else ""


def all_labels(demonstrations, query, kind):
    return [label for word, label in demonstrations if kind[word] == kind[query]]


def says_unknown(demonstrations, query, kind):
    return {kind[word]: label for word, label in demonstrations}.get(kind[query], "unknown")


def emptied(demonstrations, query, kind):
    while demonstrations:
        word, label = demonstrations.pop()
        if kind[word] == kind[query]:
            return label
    return ""


def recursive(demonstrations, query, kind):
    if not demonstrations:
        return ""
    *rest, (word, label) = demonstrations
    return label if kind[word] == kind[query] else recursive(rest, query, kind)


def sums_to_one_over_all(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.sum()


def largest_of_each(probabilities, content_free):
    weighted = probabilities / content_free.mean(0)
    return weighted / weighted.max(1, keepdim=True).values


def uses_the_median(probabilities, content_free):
    weighted = probabilities / content_free.median(0).values
    return weighted / weighted.sum(1, keepdim=True)


def logarithms(probabilities, content_free):
    return in_logarithms(probabilities, content_free).log()


def divided_in_place(probabilities, content_free):
    probabilities /= content_free.mean(0)
    return probabilities / probabilities.sum(1, keepdim=True)


def by_matrix(probabilities, content_free):
    weighted = probabilities @ torch.diag(1 / content_free.sum(0))
    return torch.nn.functional.normalize(weighted, p=1, dim=1)


def ratio(labels, shares):
    positive, negative = group_means(labels, shares)
    return positive / negative


def added(labels, shares):
    return sum(group_means(labels, shares))


def size_alone(labels, shares):
    return right_with_tensors(labels, shares).abs()


def against_all_turned(labels, shares):
    return sum(shares) / len(shares) - group_means(labels, shares)[1]


def without_the_first(labels, shares):
    return right_with_tensors(labels, shares)[1:]


def labels_sorted(labels, shares):
    labels.sort(reverse=True)
    return right_with_tensors(labels, shares)


def by_covariance(labels, shares):
    where, values = columns(labels, shares)
    where = where.double()
    centred = where - where.mean(0)
    return (centred * values).sum(0) / (centred * centred).sum(0)


# 2.3 ------------------------------------------------------------------------------------------------------------------


def by_query(queries, scores):
    groups = {}
    for query, score in zip(queries, scores):
        groups.setdefault(query, []).append(float(score))
    return groups


def interval(p, n, z=1.96):
    center, margin = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return (center - margin) / (1 + z**2 / n), (center + margin) / (1 + z**2 / n)


def of_groups(summary):
    """An answer that makes one number of each query's scores."""

    def answer(queries, scores):
        values = [summary(some) for some in by_query(queries, scores).values()]
        p = sum(values) / len(values)
        return p, *interval(p, len(values)), len(values)

    return answer


mean_of_means = of_groups(lambda some: sum(some) / len(some))


def counts_attempts(queries, scores):
    p = sum(map(float, scores)) / len(scores)
    return p, *interval(p, len(scores)), len(scores)


def mean_over_attempts(queries, scores):
    p, n = sum(map(float, scores)) / len(scores), len(set(queries))
    return p, *interval(p, n), n


def narrow_interval(queries, scores):
    p, _, _, n = mean_of_means(queries, scores)
    return p, *interval(p, len(scores)), n


def plain_interval(queries, scores):
    p, _, _, n = mean_of_means(queries, scores)
    margin = 1.96 * (p * (1 - p) / n) ** 0.5
    return p, p - margin, p + margin, n


def not_divided(queries, scores):
    p, _, _, n = mean_of_means(queries, scores)
    margin = 1.96 * (p * (1 - p) / n + 1.96**2 / (4 * n**2)) ** 0.5
    return p, p + 1.96**2 / (2 * n) - margin, p + 1.96**2 / (2 * n) + margin, n


def middle_first(queries, scores):
    _, low, high, n = mean_of_means(queries, scores)
    return (low + high) / 2, low, high, n


def high_first(queries, scores):
    p, low, high, n = mean_of_means(queries, scores)
    return p, high, low, n


def only_the_interval(queries, scores):
    return mean_of_means(queries, scores)[1:3]


def with_tensors(queries, scores):
    names = list(dict.fromkeys(queries))
    values = torch.tensor(scores, dtype=torch.float64)
    means = torch.stack([values[[query == name for query in queries]].mean() for name in names])
    p, n, z = means.mean(), len(names), 1.96
    root = (p * (1 - p) / n + (z / (2 * n)) ** 2).sqrt()
    ends = [((p + z * z / (2 * n) + sign * z * root) / (1 + z * z / n)).item() for sign in (-1, 1)]
    return p.item(), *ends, n


def with_running_sums(queries, scores):
    total, times = Counter(), Counter()
    for query, score in zip(queries, scores):
        total[query] += float(score)
        times[query] += 1
    p = sum(total[query] / times[query] for query in times) / len(times)
    return p, *interval(p, len(times)), len(times)


# 2.4 ------------------------------------------------------------------------------------------------------------------


def evaluation(cut=lambda shown, k: shown[:k], size=max, judge=by_index, names=list, end=""):
    """The few-shot evaluation with one thing done in another way."""

    def answer(write, draw, shots, count):
        episodes = [draw(size(shots)) for _ in range(count)]
        queries, answers = zip(*(asked for _, asked in episodes))
        curve = {}
        for k in shots:
            texts = write([grown_line_by_line(cut(shown, k), query) + end for shown, (query, _) in episodes])
            curve[k] = mean_of_means(names(queries), judge(texts, answers))
        return curve

    return answer


def draws_for_each(write, draw, shots, count):
    return {k: evaluation()(write, draw, [k], count)[k] for k in shots}


def draws_the_largest_for_each(write, draw, shots, count):
    most = max(shots)
    return {k: evaluation(size=lambda _: most)(write, draw, [k], count)[k] for k in shots}


def one_prompt_at_a_time(write, draw, shots, count):
    return evaluation()(lambda prompts: [write([prompt])[0] for prompt in prompts], draw, shots, count)


def shares_alone(write, draw, shots, count):
    return {k: found[0] for k, found in evaluation()(write, draw, shots, count).items()}


def in_a_row(write, draw, shots, count):
    return list(evaluation()(write, draw, shots, count).values())


def one_episode(write, draw, shots, count):
    return evaluation()(write, draw, shots, 1)


def first_list_for_all(write, draw, shots, count):
    shown = []
    return evaluation(cut=lambda own, k: (shown or shown.append(own) or shown) and shown[0][:k])(
        write, draw, shots, count)  # fmt: skip


def all_prompts_at_once(write, draw, shots, count):
    episodes = [draw(max(shots)) for _ in range(count)]
    texts = write([grown_line_by_line(shown[:k], query) for k in shots for shown, (query, _) in episodes])
    queries, answers = zip(*(asked for _, asked in episodes))
    rows = [texts[start : start + count] for start in range(0, len(texts), count)]
    return {k: with_tensors(queries, by_index(row, answers)) for k, row in zip(shots, rows)}


def episodes_by_a_loop(write, draw, shots, count):
    prompts, queries, answers = {k: [] for k in shots}, [], []
    for _ in range(count):
        shown, (query, answer) = draw(sorted(shots)[-1])
        queries.append(query)
        answers.append(answer)
        for k in shots:
            prompts[k].append(by_one_join(shown[:k], query))
    return {k: with_running_sums(queries, by_index(write(prompts[k]), answers)) for k in sorted(shots)}


# 2.5 and 2.6 ----------------------------------------------------------------------------------------------------------


def posterior_by(likelihood, prior_counts=True, divided=True, none=None):
    """Bayes' rule with another likelihood, without the prior, or without the division."""

    def answer(rules, prior, demonstrations):
        hits = {name: [rule(given) == wanted for given, wanted in demonstrations] for name, rule in rules.items()}
        weights = {name: float(likelihood(hits[name])) * (prior[name] if prior_counts else 1) for name in rules}
        if not any(weights.values()):
            if none is not None:
                return dict.fromkeys(rules, none)
            weights = prior
        total = sum(weights.values()) if divided else 1
        return {name: weight / total for name, weight in weights.items()}

    return answer


def share_of_hits(hits):
    return sum(hits) / len(hits) if hits else 1


def only_those_that_fit(rules, prior, demonstrations):
    found = posterior_by(all)(rules, prior, demonstrations)
    fits = any(all(rule(x) == y for x, y in demonstrations) for rule in rules.values())
    return {name: share for name, share in found.items() if share or not fits}


def bare_prior_where_none_fits(rules, prior, demonstrations):
    fits = any(all(rule(x) == y for x, y in demonstrations) for rule in rules.values())
    return posterior_by(all)(rules, prior, demonstrations) if fits else prior


def divides_by_zero(rules, prior, demonstrations):
    weights = {name: prior[name] * all(rule(x) == y for x, y in demonstrations) for name, rule in rules.items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def one_demonstration_after_the_other(rules, prior, demonstrations):
    belief = dict(prior)
    for given, wanted in demonstrations:
        for name, rule in rules.items():
            if rule(given) != wanted:
                belief[name] = 0
    if not sum(belief.values()):
        belief = dict(prior)
    total = sum(belief.values())
    return {name: belief[name] / total for name in belief}


def posterior_with_tensors(rules, prior, demonstrations):
    fits = torch.tensor([all(rule(x) == y for x, y in demonstrations) for rule in rules.values()]).double()
    weights = torch.tensor([prior[name] for name in rules]).double()
    weights = weights * fits if fits.any() else weights
    return dict(zip(rules, (weights / weights.sum()).tolist()))


def replaced(rules, posterior, query):
    return {rule(query): posterior[name] for name, rule in rules.items()}


def first_kept(rules, posterior, query):
    found = {}
    for name, rule in rules.items():
        found.setdefault(rule(query), posterior[name])
    return found


def best_rule(rules, posterior, query):
    return {rules[max(posterior, key=posterior.get)](query): 1.0}


def rules_counted(rules, posterior, query):
    return dict(Counter(rule(query) for rule in rules.values()))


def improbable_left_out(rules, posterior, query):
    found = Counter()
    for name, share in posterior.items():
        if share > 0:
            found[rules[name](query)] += share
    return dict(found)


def prediction_by_a_set(rules, posterior, query):
    outputs = {name: rule(query) for name, rule in rules.items()}
    return {output: sum(posterior[name] for name in rules if outputs[name] == output) for output in outputs.values()}


def prediction_by_get(rules, posterior, query):
    found = {}
    for name in posterior:
        found[rules[name](query)] = found.get(rules[name](query), 0) + posterior[name]
    return found


# 2.8 ------------------------------------------------------------------------------------------------------------------


def looking(row=lambda weights: weights[:, :, -1], piece=slice, reduce=lambda part: part.sum(-1)):
    """Sums over labels, of another row, of other tokens, or reduced in another way."""

    def answer(weights, spans, same):
        last = row(weights)
        sums = [torch.zeros_like(last[..., 0]), torch.zeros_like(last[..., 0])]
        for (start, stop), fits in zip(spans, same):
            sums[0 if fits else 1] += reduce(last[..., piece(start, stop)])
        return tuple(sums)

    return answer


def rest_is_other(weights, spans, same):
    fitting, _ = looking()(weights, spans, same)
    return fitting, 1 - fitting


def exchanged_sums(weights, spans, same):
    return looking()(weights, spans, same)[::-1]


def all_labels_second(weights, spans, same):
    fitting, others = looking()(weights, spans, same)
    return fitting, fitting + others


def difference_alone(weights, spans, same):
    fitting, others = looking()(weights, spans, same)
    return fitting - others


def over_all_heads(weights, spans, same):
    return tuple(each.mean(1) for each in looking()(weights, spans, same))


def python_sums(weights, spans, same):
    last = weights[:, :, -1]
    return (sum(last[..., a:b].sum(-1) for (a, b), fits in zip(spans, same) if fits),
            sum(last[..., a:b].sum(-1) for (a, b), fits in zip(spans, same) if not fits))  # fmt: skip


def by_cumulative_sums(weights, spans, same):
    upto = torch.nn.functional.pad(weights[:, :, -1].cumsum(-1), (1, 0))
    zero = torch.zeros_like(upto[..., 0])
    each = [upto[..., stop] - upto[..., start] for start, stop in spans]
    return tuple(sum((x for x, fits in zip(each, same) if fits is wanted), zero) for wanted in (True, False))


def by_masks(weights, spans, same):
    masks = torch.zeros(2, weights.shape[-1], dtype=weights.dtype)
    for (start, stop), fits in zip(spans, same):
        masks[int(not fits), start:stop] = 1
    return tuple(torch.einsum("lht,mt->mlh", weights[:, :, -1], masks))


# 2.9 ------------------------------------------------------------------------------------------------------------------


def everywhere(mixed, where):
    mixed[..., where] = 0


def silenced_by(columns, zeroed=everywhere, returned=lambda mixed: (mixed,)):
    """A silence that sets other columns to zero, in another way, or returns something else from its hook."""

    def silence(lm, heads):
        size = lm.model.config.hidden_size // lm.model.config.num_attention_heads

        def hook_for(head):
            def hook(module, inputs):
                mixed = inputs[0].clone()
                zeroed(mixed, columns(head, size))
                return returned(mixed)

            return hook

        return [output_projections(lm)[layer].register_forward_pre_hook(hook_for(head)) for layer, head in heads]

    return silence


def block(head, size):
    return slice(head * size, (head + 1) * size)


def late_binding(lm, heads):
    size = lm.model.config.hidden_size // lm.model.config.num_attention_heads
    handles = []
    for layer, head in heads:

        def hook(module, inputs):
            mixed = inputs[0].clone()
            mixed[..., head * size : (head + 1) * size] = 0  # noqa: B023
            return (mixed,)

        handles.append(output_projections(lm)[layer].register_forward_pre_hook(hook))
    return handles


def last_handle_alone(lm, heads):
    return silenced_by(block)(lm, heads)[-1:]


def after_the_mixing(lm, heads):
    size = lm.model.config.hidden_size // lm.model.config.num_attention_heads

    def hook_for(head):
        def hook(module, inputs, output):
            output = output.clone()
            output[..., block(head, size)] = 0
            return output

        return hook

    return [output_projections(lm)[layer].register_forward_hook(hook_for(head)) for layer, head in heads]


def weights_at_zero(lm, heads):
    size = lm.model.config.hidden_size // lm.model.config.num_attention_heads
    with torch.no_grad():
        for layer, head in heads:
            output_projections(lm)[layer].weight[:, block(head, size)] = 0
    return []


def last_head_alone(lm, heads):
    return silenced_by(block)(lm, heads[-1:])


def last_position(mixed, where):
    mixed[:, -1, where] = 0


def first_text(mixed, where):
    mixed[0, :, where] = 0


def everything_else(mixed, where):
    kept = mixed[..., where].clone()
    mixed[:] = 0
    mixed[..., where] = kept


def one_hook_per_layer(lm, heads):
    size = lm.model.config.hidden_size // lm.model.config.num_attention_heads
    handles = []
    for layer, projection in enumerate(output_projections(lm)):
        off = [head for place, head in heads if place == layer]

        def hook(module, inputs, off=off):
            parts = list(inputs[0].split(size, dim=-1))
            return (torch.cat([part * (head not in off) for head, part in enumerate(parts)], dim=-1),)

        handles.append(projection.register_forward_pre_hook(hook))
    return handles


def by_a_view(lm, heads):
    count = lm.model.config.num_attention_heads

    def hook(head, module, inputs):
        apart = inputs[0].unflatten(-1, (count, -1)).clone()
        apart[..., head, :] = 0
        return (apart.flatten(-2),)

    return [output_projections(lm)[layer].register_forward_pre_hook(partial(hook, head)) for layer, head in heads]


# 2.10 -----------------------------------------------------------------------------------------------------------------


def relabelled_by(random=lambda labels, label, rng: rng.choice(labels), wrong=None):
    """Another way to draw, or to turn round."""

    def answer(demonstrations, how, labels, rng):
        turned = wrong or (lambda label: labels[1] if label == labels[0] else labels[0])
        found = []
        for text, label in demonstrations:
            new = random(labels, label, rng) if how == "random" else turned(label) if how == "wrong" else label
            found.append((text, new))
        return found

    return answer


def one_draw_for_all(demonstrations, how, labels, rng):
    drawn = rng.choice(labels)
    return relabelled_by(random=lambda *_: drawn)(demonstrations, how, labels, rng)


def shuffles_labels(demonstrations, how, labels, rng):
    if how != "random":
        return relabelled_by()(demonstrations, how, labels, rng)
    mixed = [label for _, label in demonstrations]
    rng.shuffle(mixed)
    return [(text, label) for (text, _), label in zip(demonstrations, mixed)]


def turned_order(demonstrations, how, labels, rng):
    if how != "wrong":
        return relabelled_by()(demonstrations, how, labels, rng)
    return [(text, label) for (text, _), (_, label) in zip(demonstrations, demonstrations[::-1])]


def labels_without_texts(demonstrations, how, labels, rng):
    return [label for _, label in relabelled_by()(demonstrations, how, labels, rng)]


def changed_in_place(demonstrations, how, labels, rng):
    new = relabelled_by()(demonstrations, how, labels, rng)
    demonstrations[:] = new
    return new


def by_a_dict(demonstrations, how, labels, rng):
    other = dict(zip(labels, reversed(labels)))
    if how == "wrong":
        return [(text, other[label]) for text, label in demonstrations]
    return [(text, rng.choice(labels) if how == "random" else label) for text, label in demonstrations]


# 2.11 -----------------------------------------------------------------------------------------------------------------


def gap(pick, compare, first=torch.argmax, second=torch.argmin):
    """The gap between two orders, picked and compared on parts of the reviews."""

    def answer(hits, chosen):
        parts = {"chosen": hits[:, chosen], "others": hits[:, ~chosen], "all": hits}
        picked, fresh = parts[pick].mean(1), parts[compare].mean(1)
        return (fresh[first(picked)] - fresh[second(picked)]).item()

    return answer


def best_alone(hits, chosen):
    return hits[hits[:, chosen].mean(1).argmax(), ~chosen].mean().item()


def best_less_mean(hits, chosen):
    return best_alone(hits, chosen) - hits[:, ~chosen].mean().item()


def in_points(hits, chosen):
    return 100 * gap("chosen", "others")(hits, chosen)


def in_reviews(hits, chosen):
    return gap("chosen", "others")(hits, chosen) * int((~chosen).sum())


def by_a_sort(hits, chosen):
    order = hits[:, chosen].sum(1).argsort()
    return float((hits[order[-1]] - hits[order[0]])[~chosen].mean())


def with_lists(hits, chosen):
    rows = [([x for x, mark in zip(row, chosen) if mark], [x for x, mark in zip(row, chosen) if not mark])
            for row in hits.tolist()]  # fmt: skip
    best, worst = max(rows, key=lambda row: sum(row[0])), min(rows, key=lambda row: sum(row[0]))
    return sum(best[1]) / len(best[1]) - sum(worst[1]) / len(worst[1])


WRONG = {
    "2.1": [
        (trailing_space, "ends in a space"),
        (bare_query, "query stands bare"),
        (placeholder, "placeholder"),
        (no_separator_at_the_end, "missing between the last demonstration and the query"),
        (line_break_at_the_end, "a separator after the query"),
        (query_first, "query comes first"),
        (reversed_order, "reverse order"),
        (always_equals, "template is ignored"),
        (always_a_line_break, "separator is ignored"),
        (inputs_alone, "outputs of the demonstrations are left out"),
        (exchanged, "inputs and outputs are exchanged"),
        (one_missing, "first demonstration is missing"),
        (no_query, "query is missing"),
        (plain_query, "ignored for the query"),
        (with_commas, "not joined by the separator"),
        (in_a_list, "expected a string"),
        (in_alphabet, "demonstrations sorted"),
        (always_a_separator, "demonstrations is empty"),
    ],
    "2.2": [
        (pairwise(lambda text, answer: text == answer), "outer spaces count"),
        (pairwise(lambda text, answer: text.strip() == answer), "goes on with the next item"),
        (pairwise(lambda text, answer: " ".join(text.split()) == answer), "goes on with the next item"),
        (pairwise(lambda text, answer: text.split("\n")[0] == answer), "outer spaces count"),
        (pairwise(lambda text, answer: text.split("\n")[0].strip() == answer), "inner spaces count"),
        (pairwise(lambda text, answer: answer in text), "containing is not matching"),
        (pairwise(lambda text, answer: answer in text.split("\n")[0]), "containing is not matching"),
        (pairwise(lambda text, answer: text.strip().startswith(answer)), "starting with the answer"),
        (pairwise(lambda text, answer: text.split("\n")[0].lower().split() == answer.lower().split()), "case"),
        (pairwise(lambda text, answer: text.strip().split("\n")[0].split() == answer.split()), "before the cut"),
        (pairwise(lambda text, answer: text.split("\n")[-1].split() == answer.split()), "the last line"),
        (pairwise(lambda text, answer: set(text.split("\n")[0].split()) == set(answer.split())), "order of words"),
        (with_numbers, "expected True or False"),
        (answers_anything, "any of the questions"),
        (the_first_answer, "first answer is used for all"),
        (all_of_them, "one verdict for all"),
        (how_many, "a number of right ones"),
        (pairwise(lambda text, answer: True), "every completion counts"),
        (pairwise(lambda text, answer: text.split()[:1] == answer.split()[:1]), "first word"),
        (pairwise(lambda text, answer: text.split("\\n")[0].strip().endswith(answer)), "ending in the answer"),
        (pairwise(lambda text, answer: text.strip().lower() == answer.lower()), "case is ignored"),
    ],
    "2.3": [
        (counts_attempts, "every attempt counts"),
        (mean_over_attempts, "the mean is over attempts"),
        (narrow_interval, "interval is that of all attempts"),
        (of_groups(lambda some: some[-1]), "last score of each query"),
        (of_groups(lambda some: some[0]), "only the first score"),
        (of_groups(max), "if any attempt is"),
        (of_groups(min), "only if every attempt is"),
        (plain_interval, "the plain interval"),
        (not_divided, "not divided by 1 + z²"),
        (middle_first, "not the middle"),
        (high_first, "exchanged"),
        (only_the_interval, "expected"),
    ],
    "2.4": [
        (draws_for_each, "episodes with k demonstrations"),
        (draws_the_largest_for_each, "new episodes for every number"),
        (evaluation(size=lambda shots: shots[-1]), "the last number in shots"),
        (evaluation(cut=lambda shown, k: shown[-k:]), "all for k = 0"),
        (evaluation(cut=lambda shown, k: shown), "all demonstrations are shown"),
        (evaluation(cut=lambda shown, k: shown[: k + 1]), "one demonstration too many"),
        (evaluation(cut=lambda shown, k: shown[:k][::-1]), "reverse order"),
        (evaluation(names=lambda queries: range(len(queries))), "attempts are counted"),
        (evaluation(judge=pairwise(lambda text, answer: text == answer)), "nothing is right"),
        (evaluation(end=" "), "ends in a space"),
        (one_prompt_at_a_time, "one prompt at a time"),
        (shares_alone, "share alone"),
        (in_a_row, "expected a dict"),
        (one_episode, "one episode alone"),
        (first_list_for_all, "demonstrations of the first episode"),
    ],
    "2.5": [
        (posterior_by(all, divided=False), "not normalised"),
        (posterior_by(all, prior_counts=False), "the prior is ignored"),
        (posterior_by(lambda hits: any(hits) or not hits), "if any demonstration does"),
        (posterior_by(lambda hits: all(hits[-1:])), "only the last demonstration"),
        (posterior_by(lambda hits: all(hits[:1])), "only the first demonstration"),
        (posterior_by(share_of_hits), "one miss rules a rule out"),
        (posterior_by(lambda hits: 1), "demonstrations are ignored"),
        (posterior_by(all, none=0.0), "0 for all is no distribution"),
        (posterior_by(all, none=0.25), "not all rules alike"),
        (bare_prior_where_none_fits, "normalised too"),
        (only_those_that_fit, "ruled out are missing"),
        (divides_by_zero, "ZeroDivisionError"),
    ],
    "2.6": [
        (replaced, "replaces another one"),
        (first_kept, "only the first of the rules"),
        (best_rule, "most probable rule alone"),
        (rules_counted, "rules are counted"),
        (improbable_left_out, "probability 0 are missing"),
        (lambda rules, posterior, query: posterior, "these are the rules"),
    ],
    "2.7": [
        (last_label, "recency bias"),
        (majority, "majority-label bias"),
        (first_match, "the latest one does"),
        (next_label, "off by one"),
        (guess_when_unknown, "nothing can be known"),
        (none_when_unknown, "None where"),
        (the_word, "word that matched"),
        (the_kind, "this is the kind"),
        (the_same_word, "very same word"),
        (other_kind, "of another kind"),
        (gives_up_early, "search goes on"),
        (label_before, "before the match"),
        (all_labels, "all labels of the kind"),
        (says_unknown, "nothing can be known"),
        (emptied, "changed in place"),
    ],
    "2.8": [
        (looking(row=lambda weights: weights[:, :, 0]), "not the first row"),
        (looking(row=lambda weights: weights[:, :, :, -1]), "not the last column"),
        (looking(row=lambda weights: weights[:, :, -2]), "the position before the last"),
        (looking(row=lambda weights: weights.sum(2)), "summed over all positions"),
        (looking(row=lambda weights: weights.mean(2)), "averaged over all positions"),
        (looking(piece=lambda start, stop: slice(start, stop + 1)), "stop is not in"),
        (looking(piece=lambda start, stop: slice(start, start + 1)), "only the first token"),
        (looking(reduce=lambda part: part.mean(-1)), "averaged over the tokens"),
        (looking(reduce=lambda part: part.amax(-1)), "the largest weight"),
        (rest_is_other, "take labels alone"),
        (exchanged_sums, "exchanged"),
        (all_labels_second, "leave out those that fit"),
        (difference_alone, "return both sums"),
        (python_sums, "expected"),
    ],
    "2.9": [
        (late_binding, "all hooks silence the last head"),
        (silenced_by(block, returned=lambda mixed: None), "no head is silent"),
        (silenced_by(lambda head, size: slice(None)), "whole layers"),
        (silenced_by(lambda head, size: slice(head, None, 4)), "every H-th column"),
        (silenced_by(lambda head, size: head), "one column"),
        (silenced_by(lambda head, size: slice(head, head + size)), "starts at column h"),
        (silenced_by(lambda head, size: slice(head * size, None)), "ends at (h + 1) s"),
        (silenced_by(block, last_position), "last position alone"),
        (silenced_by(block, first_text), "first text of the batch"),
        (silenced_by(block, everything_else), "the others are silent"),
        (after_the_mixing, "what goes in"),
        (last_head_alone, "only the last of the heads"),
        (last_handle_alone, "not all heads come back"),
        (weights_at_zero, "change no weight"),
    ],
    "2.10": [
        (relabelled_by(wrong=lambda label: label), "stay as they are"),
        (relabelled_by(random=lambda labels, label, rng: label), "draw each anew"),
        (one_draw_for_all, "one draw for all"),
        (shuffles_labels, "shuffled"),
        (turned_order, "order of the labels"),
        (labels_without_texts, "labels alone"),
        (changed_in_place, "changed in place"),
        (relabelled_by(random=lambda labels, label, rng: labels[rng.random() < 0.5]), "rng.choice(labels)"),
    ],
    "2.11": [
        (gap("chosen", "chosen"), "on the same reviews"),
        (gap("others", "others"), "on the other reviews"),
        (gap("others", "chosen"), "halves are exchanged"),
        (gap("all", "all"), "on all reviews: keep"),
        (gap("all", "others"), "may have no say"),
        (gap("chosen", "all"), "count again"),
        (gap("chosen", "others", torch.argmin, torch.argmax), "turn it round"),
        (best_alone, "best order alone"),
        (best_less_mean, "less the mean"),
        (in_points, "points of a hundred"),
        (in_reviews, "take means"),
    ],
    "2.12": [
        (from_the_query_backwards, "in reverse"),
        (turned, "with the sign turned"),
        (positive_alone, "subtract the mean of those"),
        (against_all, "mean over all contexts"),
        (sums, "sums, not means"),
        (divided_by_all, "divided by all contexts"),
        (last_place, "one number per place"),
        (ratio, "ratio of the two means"),
        (added, "are added"),
        (size_alone, "sign dropped"),
        (against_all_turned, "less that of those with a negative label"),
        (without_the_first, "without the first"),
        (labels_sorted, "labels was changed in place"),
    ],
    "2.13": [
        (subtracts, "subtracted"),
        (no_new_sum, "not normalised again"),
        (multiplies, "multiplied"),
        (averages_late, "average p_cf first"),
        (averages_the_inverse, "average of 1 / p_cf"),
        (uses_the_test_set, "mean prediction on the test inputs"),
        (uses_the_first, "only the first content-free input"),
        (normalizes_the_inputs, "normalised over the inputs"),
        (takes_a_softmax, "softmax on probabilities"),
        (labels_alone, "these are labels"),
        (unchanged, "as if content_free were 1"),
        (sums_to_one_over_all, "normalised over everything"),
        (largest_of_each, "divided by its largest"),
        (uses_the_median, "lower median"),
        (logarithms, "as a logarithm"),
        (divided_in_place, "probabilities was changed in place"),
    ],
}
RIGHT = {
    "2.1": [grown_line_by_line, by_one_join],
    "2.2": [
        by_index,
        pairwise(lambda text, answer: "".join(takewhile("\n".__ne__, text)).split() == answer.split()),
    ],
    "2.3": [mean_of_means, with_tensors, with_running_sums],
    "2.4": [evaluation(), all_prompts_at_once, episodes_by_a_loop],
    "2.5": [posterior_by(all), one_demonstration_after_the_other, posterior_with_tensors],
    "2.6": [prediction_by_a_set, prediction_by_get],
    "2.7": [backwards, recursive],
    "2.8": [looking(), by_masks, by_cumulative_sums],
    "2.9": [silenced_by(block), one_hook_per_layer, by_a_view],
    "2.10": [relabelled_by(), by_a_dict],
    "2.11": [gap("chosen", "others"), by_a_sort, with_lists],
    "2.12": [right_with_tensors, by_a_loop, by_covariance],
    "2.13": [in_logarithms, by_matrix],
}
