"""The interactive pages: their mathematics against the package, and what every reader needs of a page.

The functions between the marks "---- maths" and "---- end of maths" of a page are pure; they run in Node, and what they
give is held against ptlearn.
"""

import functools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from conftest import module_of
from ptlearn import policy_gradient as pg
from ptlearn.grid import mdp as exact
from ptlearn.grid.gridworld import MAPS, GridWorld
from ptlearn.lm.attention import attention_weights
from ptlearn.lm.models import load_lm
from ptlearn.rl.policies import TabularPolicy

FOLDER = Path(__file__).parents[2] / "docs" / "interactive"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.html")) if path.stem != "index"}
MATHS = re.compile(r"// ---- maths[^\n]*\n(.*?)// ---- end of maths", re.DOTALL)

node = pytest.mark.skipif(not shutil.which("node"), reason="the pages' JavaScript runs in Node, which is not installed")


def run(page, expression, **given):
    """What a JavaScript expression over a page's functions and the given values is worth."""
    [maths] = MATHS.findall(PAGES[page])
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    script = f'"use strict";\n{maths}\n{names}process.stdout.write(JSON.stringify({expression}));'
    done = subprocess.run(["node"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(found, expected, tolerance=1e-9):
    found, expected = (torch.as_tensor(x, dtype=torch.float64) for x in (found, expected))
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance), float((found - expected).abs().max())


def table(states, seed):
    """A policy with logits that are all over the place."""
    policy = TabularPolicy(states, 4).double()
    policy.logits.data = 2 * torch.randn(states, 4, generator=torch.Generator().manual_seed(seed)).double()
    return policy


# ---------------------------------------------------------------- the grid world

WORLDS = [
    ("default", 0.2, 0.0, 0.9, None),
    ("default", 0.0, -0.04, 1.0, 40),
    ("small", 0.3, -0.25, 1.0, 5),
    ("cliff", 0.1, -0.1, 0.95, 10),
    ("four-rooms", 1.0, 0.0, 0.7, None),
    ("small", 0.2, -0.1, 1.0, None),
    (["S#G", ".XS", "#.#"], 0.4, -0.02, 0.7, 3),
]


@node
def test_maps_are_those_of_the_package():
    assert run("grid_world", "MAPS") == MAPS


@node
@pytest.mark.parametrize("rows, slip, step, gamma, horizon", WORLDS)
def test_values_visits_objective_and_gradient_are_the_packages(rows, slip, step, gamma, horizon):
    grid = GridWorld(rows, slip=slip, step_reward=step)
    world = grid.to_mdp(gamma)
    policy = table(world.states, 1)
    pi = exact.probabilities(world, policy).detach()
    found = run("grid_world", "study(toMdp(rows, slip, step), logits, gamma, horizon)", rows=grid.map, slip=slip,
                step=step, logits=policy.logits.tolist(), gamma=gamma, horizon=horizon)  # fmt: skip
    values = exact.state_values(world, pi) if horizon is None else exact.horizon_values(world, pi, horizon)[0]
    same(found["pi"], pi)
    same(found["values"], values)
    same(found["visits"], exact.occupancy(world, pi, horizon))
    same(found["J"], exact.objective(world, pi, horizon))
    same(found["gradient"], exact.exact_gradient(world, policy, horizon).view_as(pi))


@node
@pytest.mark.parametrize("rows, slip, step, gamma, horizon", WORLDS)
def test_best_values_are_the_packages(rows, slip, step, gamma, horizon):
    grid = GridWorld(rows, slip=slip, step_reward=step)
    world = grid.to_mdp(gamma)
    expected = torch.zeros(world.states).double()
    for _ in range(horizon or 0):
        expected = exact.action_values(world, expected).max(1).values
    expected = exact.value_iteration(world, tolerance=1e-12) if horizon is None else expected
    found = run("grid_world", "bestValues(toMdp(rows, slip, step), gamma, horizon)", rows=grid.map, slip=slip,
                step=step, gamma=gamma, horizon=horizon)  # fmt: skip
    same(found, expected)


@node
def test_steps_up_the_gradient_are_those_of_plain_ascent_on_the_exact_objective():
    world = GridWorld("default", slip=0.2).to_mdp(0.9)
    policy = table(world.states, 2)
    begun = policy.logits.tolist()
    for _ in range(3):
        gradient = exact.exact_gradient(world, policy).view_as(policy.logits)
        policy.logits.data += 5.0 * gradient
    three = "[1, 2, 3].reduce((theta) => uphill(theta, study(world, theta, 0.9).gradient, 5), logits)"
    found = run("grid_world", f"((world) => {three})(toMdp(MAPS.default, 0.2))", logits=begun)
    same(found, policy.logits.detach())


@node
def test_an_endless_world_is_found_where_the_package_refuses_it():
    for rows, step in ((["S.G", "###", "..."], -0.1), (["S.G", "###", "X.."], -0.1), (["S.G", "##.", ".#."], 0.0)):
        grid = GridWorld(rows, step_reward=step)
        world = grid.to_mdp(1.0)
        found = run("grid_world", "endless(toMdp(rows, 0, step))", rows=rows, step=step)
        try:
            exact.state_values(world, torch.full((world.states, 4), 0.25).double())
            assert found == -1
        except ValueError as refused:
            assert f"state {found}:" in str(refused)


# ---------------------------------------------------------------- REINFORCE

COSTLY = "every step costs 0.25"
PROBLEMS = [("only the end pays", "uneven"), (COSTLY, "uniform"), (COSTLY, "on its way")]
SET_UP = "const w = WORLDS[world], mdp = toMdp(w.rows, w.slip, w.stepReward), pi = POLICIES[policy].map(softmax);"


def reinforce(world, policy, result, **given):
    """`result` in JavaScript, where w, mdp, pi and the exact values V are at hand."""
    body = f"{SET_UP} const V = horizonValues(mdp, pi, 1, w.horizon); return {result};"
    return run("reinforce", f"(() => {{ {body} }})()", world=world, policy=policy, **given)


@functools.cache
def package(world, policy):
    """The same problem: MDP, policy, pi, time limit, the values of each time, and every trajectory."""
    settings, logits = reinforce(world, policy, "[w, POLICIES[policy]]")
    grid = GridWorld(settings["rows"], slip=settings["slip"], step_reward=settings["stepReward"]).to_mdp()
    table = TabularPolicy(grid.states, 4).double()
    table.logits.data = torch.tensor(logits, dtype=torch.float64)
    pi = exact.probabilities(grid, table).detach()
    horizon = settings["horizon"]
    every = exact.enumerate_trajectories(grid, table, horizon)
    return grid, table, pi, horizon, exact.horizon_values(grid, pi, horizon), every


def weights_of(kind, rewards, mask, values, b=0.0):
    """(B, T), by the package; values (B, T) at each step."""
    whole = pg.total_return(rewards, mask)
    returns, nothing = whole[:, 0], torch.zeros(len(rewards)).double()
    if kind == "togo":
        return pg.reward_to_go(rewards, mask)
    if kind in ("value", "td"):
        return pg.advantage(rewards, values, mask, nothing, lam=float(kind == "value"))
    if kind == "own":
        return rewards * mask
    if kind == "standard":
        return pg.standardized(returns)[:, None] * mask
    baselines = {"average": pg.mean_baseline, "others": pg.leave_one_out}
    taken = baselines[kind](returns)[:, None] if kind in baselines else {"total": 0.0, "constant": b}[kind]
    return (whole - taken) * mask


@node
@pytest.mark.parametrize("world, policy", PROBLEMS)
def test_every_trajectory_is_listed_with_its_chance(world, policy):
    *_, (listed, _, chances) = package(world, policy)
    found = reinforce(world, policy, "trajectories(mdp, pi, w.horizon).map((x) => [x.chance, x.rewards])")
    assert len(found) == len(chances)
    same(sorted(chance for chance, _ in found), chances.sort().values)
    same(sum(chance * sum(rewards) for chance, rewards in found), chances @ listed.rewards.sum(1))


@node
@pytest.mark.parametrize("world, policy", PROBLEMS)
def test_exact_mean_and_variance_of_every_weight_are_sums_over_trajectories(world, policy):
    grid, table, pi, horizon, values, (every, _, chances) = package(world, policy)
    along = values[torch.arange(every.mask.shape[1]), every.observations]
    truth, b = exact.exact_gradient(grid, table, horizon), 0.3
    kinds = ["total", "togo", "constant", "value", "td", "own"]
    result = "((all) => kinds.map((kind) => moments(kind, pi, all, V, b)))(trajectories(mdp, pi, w.horizon))"
    for kind, found in zip(kinds, reinforce(world, policy, result, kinds=kinds, b=b), strict=True):
        weights = weights_of(kind, every.rewards, every.mask, along, b)
        each = exact.episode_gradients(pi, every.observations, every.actions, weights).flatten(1)
        mean = chances @ each
        same(found["mean"], mean)
        same(found["variance"], chances @ (each**2).sum(1) - mean @ mean)
        assert ((mean - truth).norm() < 1e-9) == (kind != "own")


@node
@pytest.mark.parametrize("world, policy", PROBLEMS)
def test_weights_and_estimates_of_a_batch_are_the_packages(world, policy):
    _, _, pi, horizon, values, _ = package(world, policy)
    kinds = ["total", "togo", "average", "others", "constant", "standard", "value", "td", "own"]
    assert sorted(run("reinforce", "Object.keys(KINDS)")) == sorted(kinds)
    batch, weighed, estimates = reinforce(
        world, policy, "((batch) => [batch, kinds.map((kind) => weigh(kind, batch, V, b)), kinds.map((kind) => "
        "estimate(pi, batch, weigh(kind, batch, V, b)))])(((random) => Array.from({length: 7}, () => "
        "sample(mdp, pi, w.horizon, random)))(randomNumbers(5)))", kinds=kinds, b=-0.4)  # fmt: skip

    def padded(rows, dtype=torch.float64):
        return torch.tensor([row + [0] * (horizon - len(row)) for row in rows], dtype=dtype)

    states, actions = (padded([episode[name] for episode in batch], torch.long) for name in ("states", "actions"))
    rewards = padded([episode["rewards"] for episode in batch])
    mask = torch.arange(horizon) < torch.tensor([len(episode["rewards"]) for episode in batch])[:, None]
    for kind, weights, estimate in zip(kinds, weighed, estimates, strict=True):
        expected = weights_of(kind, rewards, mask, values[torch.arange(horizon), states] * mask, -0.4)
        same(padded(weights), expected)
        same(estimate, exact.episode_gradients(pi, states, actions, expected).mean(0).flatten())


@node
def test_episodes_are_drawn_as_often_as_their_chances_say():
    world, policy = COSTLY, "uneven"
    name = "((x) => [x.states, x.actions].join())"
    chances, drawn = reinforce(
        world, policy, f"[trajectories(mdp, pi, w.horizon).map((x) => [{name}(x), x.chance]), ((random) => "
        f"Array.from({{length: 20000}}, () => {name}(sample(mdp, pi, w.horizon, random))))(randomNumbers(3))]",
    )  # fmt: skip
    chances, terms, rest = dict(chances), [], [0, 0.0]
    counts = dict.fromkeys(chances, 0)
    for episode in drawn:
        counts[episode] += 1
    for episode, chance in chances.items():
        if 20000 * chance < 5:
            rest = [rest[0] + counts[episode], rest[1] + 20000 * chance]
        else:
            terms.append((counts[episode] - 20000 * chance) ** 2 / (20000 * chance))
    terms.append((rest[0] - rest[1]) ** 2 / rest[1])
    half = torch.tensor([(len(terms) - 1) / 2, sum(terms) / 2], dtype=torch.float64)
    assert float(torch.special.gammaincc(*half)) > 1e-3


@node
def test_bias_and_noise_are_those_of_all_estimates_at_once():
    generator = torch.Generator().manual_seed(0)
    exactly = torch.randn(16, generator=generator).double()
    estimates = exactly + 0.1 + torch.randn(50, 16, generator=generator).double()
    begun = "{count: 0, mean: zeros(16), squares: zeros(16)}"
    found = run("reinforce", f"summary(estimates.reduce(add, {begun}), exactly)", estimates=estimates.tolist(),
                exactly=exactly.tolist())  # fmt: skip
    mean, variances, size = estimates.mean(0), estimates.var(0), exactly.norm()
    same(found["error"], (mean - exactly).norm() / size)
    same(found["chance"], (variances.sum() / 50).sqrt() / size)
    same(found["share"], mean @ exactly / size**2)
    same(found["z"], ((mean - exactly).abs() / (variances / 50).sqrt()).max())
    same(found["variance"], variances.sum() / size**2)


@node
def test_the_threshold_is_bonferronis():
    assert run("reinforce", "LIMIT") == round(float(torch.special.ndtri(torch.tensor(1 - 0.01 / 16 / 2))), 2)


# ---------------------------------------------------------------- tokens: credit and ratios

CAP, EPSILON = 1.3, 0.2


def record_of(page):
    [text] = re.findall(r'<script type="application/json" id="record">\n(.*?)\n</script>', PAGES[page], re.DOTALL)
    return json.loads(text)


def padded_answers(answers):
    """rewards (B,), groups (B,), log pi, log mu and mask (B, T) of recorded answers."""
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(each["pi"])) for each in answers], batch_first=True) > 0
    pi, mu = torch.zeros(2, *mask.shape, dtype=torch.float64)
    for row, each in enumerate(answers):
        for table, name in ((pi, "pi"), (mu, "mu")):
            table[row, : len(each[name])] = torch.tensor(each[name], dtype=torch.float64)
    rewards, groups = (torch.tensor([each[x] for each in answers]) for x in ("reward", "prompt"))
    return rewards.double(), groups, pi, mu, mask


@node
def test_credits_ratios_and_weights_are_the_packages():
    pairs = record_of("token_credit")["pairs"]
    kinds, forms = ["total", "others", "standard"], ["none", "step", "truncated", "clipped", "prefix", "answer"]
    assert set(run("token_credit", "Object.keys(FORMS)")) == set(forms)
    every = run(
        "token_credit", "Object.values(pairs).map((answers) => kinds.map((kind) => ((all) => forms.map((form) => "
        "answers.map((answer, i) => [all[i], ratios(answer, form, cap), weights(answer, all[i], form, cap, epsilon)])))"
        "(credits(answers, kind))))", pairs=pairs, kinds=kinds, forms=forms, cap=CAP, epsilon=EPSILON,
    )  # fmt: skip
    for found, answers in zip(every, pairs.values(), strict=True):
        rewards, groups, pi, mu, mask = padded_answers(answers)
        of_answers = rewards, rewards - pg.leave_one_out(rewards, groups=groups), pg.standardized(rewards, groups)
        step = pg.step_ratio(pi, mu, mask)
        ratios = [mask.double(), step, pg.truncated_ratio(pi, mu, mask, cap=CAP), step,
                  pg.prefix_ratio(pi, mu, mask), pg.trajectory_ratio(pi, mu, mask)]  # fmt: skip
        for of_kind, credit in zip(found, of_answers, strict=True):
            credit = credit[:, None] * mask
            for of_form, form, ratio in zip(of_kind, forms, ratios, strict=True):
                weights = pg.clipped_weights(step, credit, epsilon=EPSILON) if form == "clipped" else ratio * credit
                for part, expected in enumerate((credit, ratio, weights)):
                    same([x for row in of_form for x in row[part]], expected[mask])


@node
def test_effective_sample_size_and_distances_are_the_packages():
    pairs = record_of("token_credit")["pairs"]
    measures = "Object.values(pairs).map((answers) => [effectiveSampleSize(answers), distances(answers)])"
    for (ess, found), answers in zip(run("token_credit", measures, pairs=pairs), pairs.values(), strict=True):
        _, _, pi, mu, mask = padded_answers(answers)
        same(ess, pg.effective_sample_size(pg.trajectory_ratio(pi, mu, mask)[:, 0]))
        estimates = pg.kl_estimates(mu, pi, mask)
        same(found["k1"], estimates.k1[mask].mean())
        same(found["k3"], estimates.k3[mask].mean())
        same(found["largest"], (pi - mu).abs().max())


@node
def test_a_large_ratio_of_a_whole_answer_does_not_overflow_the_effective_sample_size():
    answers = [
        {"pi": [0.0] * 9, "mu": [-100.0] * 9},
        {"pi": [0.0] * 9, "mu": [-100.0] * 9},
        {"pi": [-1.0], "mu": [-1.0]},
    ]
    same(run("token_credit", "effectiveSampleSize(answers)", answers=answers), 2.0)


def test_credits_of_an_answer_sum_to_its_reward_less_what_was_expected():
    record = record_of("token_credit")
    own = list(record["pairs"].values())[0]
    assert len(record["credits"]) == len(own)
    for values, answer in zip(record["credits"], own):
        assert len(values) == len(answer["tokens"])
        start = answer["reward"] - sum(values)  # V of the prompt, the same for all answers to it
        others = [each["reward"] - sum(credit) for credit, each in zip(record["credits"], own)
                  if each["prompt"] == answer["prompt"]]  # fmt: skip
        assert others == pytest.approx([start] * len(others), abs=1e-3) and 0 <= start <= 1


# ---------------------------------------------------------------- attention and the records


@pytest.fixture(scope="module")
def record():
    """docs/interactive/record.py as a module."""
    return module_of(FOLDER / "record.py")


@pytest.fixture(scope="module")
def pocket_m():
    return load_lm("pocket-m")


@node
def test_attention_is_that_of_the_model_to_a_rounding(record, pocket_m, one_thread):
    recorded = record_of("attention")
    name, text, answer, marks = record.texts(pocket_m)[0]
    kept = recorded["texts"][0]
    assert recorded["model"] == pocket_m.name and (kept["name"], kept["answer"], kept["marks"]) == (name, answer, marks)
    assert "".join(kept["tokens"][1:]) == text
    weights, last = attention_weights(pocket_m, text), len(kept["tokens"]) - 1
    found = run("attention", "unpack(text)", text=kept)
    for q in range(last + 1):
        rows = torch.tensor([[head[q] for head in layer] for layer in found])
        assert (rows - weights[:, :, q, : q + 1]).abs().max() <= 0.5 / 255 + 1e-3
    table = run("attention", "onTokens(unpack(text), q, marks)", text=kept, q=last, marks=marks)
    expected = weights[:, :, last, marks].sum(-1)
    same(table, expected, tolerance=0.005)
    assert run("attention", "largest(table)", table=table) == list(divmod(int(expected.argmax()), expected.shape[1]))


@node
def test_what_is_looked_at_most_comes_first():
    assert run("attention", "most([0.1, 0.6, 0.3], 2)") == [[1, 0.6], [2, 0.3]]


def test_recorded_answers_are_what_the_script_makes(record, one_thread):
    recorded, lm = record_of("token_credit"), record.finetuned()
    problems = record.mixed(lm)
    assert recorded["prompts"] == [problem.prompt for problem in problems]
    made = record.answers(lm, record.sampled(lm, problems), lm)
    for answer, kept in zip(made, recorded["pairs"]["the same weights"], strict=True):
        assert (answer["prompt"], answer["reward"], answer["tokens"]) == (
            kept["prompt"], kept["reward"], kept["tokens"])  # fmt: skip
        assert answer["mu"] == pytest.approx(kept["mu"], abs=0.02)
        assert answer["pi"] == pytest.approx(kept["pi"], abs=0.02)


# ---------------------------------------------------------------- every page


class Reader(HTMLParser):
    """The tags of a page, [(tag, attributes)], and which labels stand around which inputs."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.labels, self.bare = [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.labels += tag == "label"
        if tag in ("input", "select") and not self.labels and "aria-label" not in attributes:
            self.bare.append(attributes.get("id", tag))

    def handle_endtag(self, tag):
        self.labels -= tag == "label"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_by_itself_and_small(page):
    text = PAGES[page]
    assert len(text.encode()) <= 150_000
    assert not re.search(r"https?:|\bfetch\(|XMLHttpRequest|\bimport\(|@import|url\(", text)
    assert not any({"src", "srcset"} & set(attributes) for _, attributes in Reader(text).tags)
    assert not any(tag in ("link", "iframe", "img") for tag, _ in Reader(text).tags)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_heard_and_used_by_keyboard(page):
    text, read = PAGES[page], Reader(PAGES[page])
    tags = {tag for tag, _ in read.tags}
    assert dict(read.tags)["html"]["lang"] == "en" and {"title", "main", "h1", "select"} <= tags
    assert not read.bare, "inputs without a label"
    assert any(attributes.get("aria-live") == "polite" for _, attributes in read.tags)
    assert all("aria-labelledby" in found or "aria-hidden" in found for tag, found in read.tags if tag == "svg")
    assert all(found.get("type") == "button" for tag, found in read.tags if tag == "button")
    assert not any("onclick" in found for _, found in read.tags), "handlers stand in the script"
    for needed in ("light-dark(", "prefers-reduced-motion", ":focus-visible", "width=device-width"):
        assert needed in text


SHARED = [r"/\* the same in every page \*/.*?</style>", "// -- the world.*?// -- end of the world"]


@pytest.mark.parametrize("mark", SHARED)
def test_what_pages_share_is_the_same_in_all_of_them(mark):
    parts = [found for text in PAGES.values() for found in re.findall(mark, text, re.DOTALL)]
    assert parts and set(parts) == {parts[0]}
