"""`ptlearn tour`: the course in miniature, measured while you wait, on one page that needs no network.

A stage measures something and returns a Section; the page is the sections of STAGES in order.
"""

import argparse
import copy
import functools
import io
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ptlearn.course.session import picture_tag, progress


@dataclass(frozen=True)
class Section:
    """What one stage found: a claim, the samples and the numbers behind it, and perhaps a figure (PNG bytes)."""

    title: str
    text: str
    samples: list[tuple[str, str]] = field(default_factory=list)  # (prompt, continuation)
    rows: list[tuple[str, str]] = field(default_factory=list)  # (what was measured, result)
    figure: tuple[bytes, str] | None = None  # (PNG, alt text)
    html: str = ""  # anything more, such as an animation


def base_model(lm) -> Section:
    """A base model continues a question; the same fact as a sentence to complete comes out (C02, C03)."""
    from ptlearn.lm.text import complete
    from ptlearn.pocket import probes

    prompts = ["What is the capital of Kenya?", "The capital of Kenya is"]
    samples = list(zip(prompts, complete(lm, prompts, max_new_tokens=28, stop=()), strict=True))
    return Section(
        "A base model continues; it does not answer",
        "Pretraining taught the model to go on with a text. After a question, the likeliest text is another question. "
        "The fact is there all the same: write the prompt so that the answer is the natural continuation.",
        samples,
        [
            ("capital questions answered", str(probes.capital_questions(lm))),
            ("the same facts as a sentence to complete", str(probes.capital_cloze(lm))),
            ("reviews judged by [great/awful]", str(probes.sentiment(lm, 200))),
        ],
    )


SHOTS = (0, 1, 2, 4, 8)
SHOWN = ("french to english", "2 labels", "capital", "pick")


def in_context_learning(lm) -> Section:
    """A few demonstrations, no gradient step: what is asked for becomes clear (C05, C06)."""
    from ptlearn.lm.prompting import few_shot_prompt
    from ptlearn.lm.text import complete
    from ptlearn.pocket import probes, relations

    demonstrations, (query, _) = relations.episode(relations.RELATIONS["french to english"], 4, random.Random(7))
    prompts = [few_shot_prompt([], query), few_shot_prompt(demonstrations, query)]
    samples = list(zip(prompts, complete(lm, prompts), strict=True))
    curves = {name: [probes.few_shot(lm, name, shots, 100) for shots in SHOTS]
              for name in progress(SHOWN, "few-shot")}  # fmt: skip
    rows = [(f"{name}, {SHOTS[0]} → {SHOTS[-1]} demonstrations", f"{c[0]} → {c[-1]}") for name, c in curves.items()]
    return Section(
        "Demonstrations say what is wanted",
        "The prompt shows a few solved examples, and the model goes on in the same way. Nothing is trained. The labels "
        "of “2 labels” are nonsense words drawn afresh for every prompt: no weight can know them.",
        samples,
        rows,
        _shots_figure(curves),
    )


def _shots_figure(curves: dict) -> tuple[bytes, str]:
    from matplotlib.figure import Figure

    from ptlearn import figures

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for index, (name, estimates) in enumerate(curves.items()):
        figures.curve(axes, SHOTS, estimates, name, index)
    axes.set(title="In-context learning of a pocket LM", xlabel="demonstrations in the prompt",
             ylabel="exact match on held-out queries", ylim=(-0.02, 1.02), xticks=SHOTS)  # fmt: skip
    axes.legend(loc="lower right")
    alt = "; ".join(f"{name}: {c[0].mean:.2f} without demonstrations, {c[-1].mean:.2f} with {SHOTS[-1]}"
                    for name, c in curves.items())  # fmt: skip
    return _png(figure), f"Exact match against the number of demonstrations. {alt}."


# requests to learn from and how often, held-out requests of every use case; LoRA's layers: all but the MLP's last
EXAMPLES, EPOCHS, EACH = 600, 2, 20
LORA = {"targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"], "rank": 8, "alpha": 32}
SAID = ("generation", "open qa", "chat")


def supervised_finetuning(lm) -> Section:
    """Examples of requests and responses make an assistant of a base model (C08, C09)."""
    asked, before, after, said, _ = _assistant(lm)
    shown = [next(index for index, request in enumerate(asked) if request.use_case == name) for name in SAID]
    return Section(
        "Examples make an assistant of it",
        f"{EXAMPLES} requests with a good response each, in the ten use cases and the shares that InstructGPT's users "
        "had (Ouyang et al., 2022). The loss is taken on the responses alone. The test asks for other things in other "
        "words, and a verifier scores every response between 0 and 1. The low rows say what so few examples do not "
        "teach a model of this size.",
        [(f"{asked[index].prompt}\n", said[index]) for index in shown],
        [(f"{name}, before → after", f"{before[name].mean:.2f} → {after[name]}") for name in after],
        _use_case_figure(before, after),
    )


def low_rank_adaptation(lm) -> Section:
    """The same with one parameter in twenty: LoRA beside the frozen weights (C17, C18, C22)."""
    from ptlearn.finetuning.memory import count_parameters
    from ptlearn.finetuning.parameter_efficient import lora, switch_adapter
    from ptlearn.lm.devices import one_thread

    asked, _, full, _, _ = _assistant(lm)
    narrow = lora(copy.deepcopy(lm), **LORA)
    trained, every = count_parameters(narrow)
    with one_thread():
        _finetune(narrow, lr=3e-3)
        _, score = _responses(narrow, asked)
        switch_adapter(narrow, None)
        unchanged = _responses(narrow, asked[:EACH])[0] == _responses(lm, asked[:EACH])[0]
    return Section(
        "A narrow path beside the weights does nearly the same",
        "LoRA leaves every weight as it is and trains two thin matrices beside each chosen one. Optimizer states and "
        "checkpoint shrink to that share; with the path switched off, the model is the base model again.",
        rows=[
            ("trained by full finetuning", f"{every - trained:,} parameters"),
            ("trained by LoRA, rank 8", f"{trained:,} parameters, {trained / (every - trained):.1%}"),
            ("score on the ten use cases, all weights", str(full["overall"])),
            ("score on the ten use cases, LoRA", str(score["overall"])),
            ("switched off: the base model's responses", "the same" if unchanged else "others"),
        ],
    )


@functools.cache
def _assistant(lm):
    """Requests, the base's scores, the finetuned model's, what it said, and itself: three stages need them."""
    from ptlearn.lm.devices import one_thread
    from ptlearn.pocket import assistant

    asked = assistant.held_out_requests(EACH, seed=7)
    tuned = copy.deepcopy(lm)
    with one_thread():
        _, before = _responses(lm, asked)
        _finetune(tuned, lr=1e-3)
        said, after = _responses(tuned, asked)
    return asked, before, after, said, tuned


def _finetune(lm, lr: float) -> None:
    from ptlearn.finetuning.sft import fit_sft
    from ptlearn.lm.chat import render_all
    from ptlearn.pocket import assistant

    examples, _ = render_all(lm, assistant.conversations(assistant.requests(EXAMPLES)))
    fit_sft(lm, examples, epochs=EPOCHS, batch=8, lr=lr, progress=lambda steps: progress(steps, "finetuning"))


def _responses(lm, asked) -> tuple[list[str], dict]:
    """What a model answers, greedily, and its scores by use case."""
    from ptlearn.pocket import assistant

    said = assistant.respond(lm, [request.prompt for request in asked])
    return said, assistant.score_by_use_case(asked, said)


def _use_case_figure(before: dict, after: dict) -> tuple[bytes, str]:
    from matplotlib.figure import Figure

    from ptlearn import figures

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    names = list(after)
    for index, (label, scores) in enumerate((("base model", before), ("after finetuning", after))):
        figures.bars(axes, names, [scores[name] for name in names], index, groups=2)
        axes.plot([], [], "s", color=figures.COLORS[index], label=label)
    axes.tick_params(axis="x", rotation=45)
    axes.set(title=f"Ten use cases, {EACH} held-out requests each", ylabel="score by verifiers", ylim=(0, 1.05))
    axes.legend()
    alt = ", ".join(f"{name} {before[name].mean:.2f} to {after[name].mean:.2f}" for name in names)
    return _png(figure), f"Score of each use case before and after finetuning: {alt}."


SEEDS, UPDATES, EPISODES, HORIZON, GAMMA, LAM = 5, 50, 32, 100, 0.95, 0.9


def grid_world(lm) -> Section:
    """An agent learns to walk through four rooms from a reward at the goal alone (C27, C35)."""
    import torch

    from ptlearn.figures import animation
    from ptlearn.grid.collection import collect
    from ptlearn.grid.gridworld import GridWorld
    from ptlearn.grid.mdp import objective, probabilities, value_iteration
    from ptlearn.lm.devices import one_thread

    world = GridWorld("four-rooms")
    mdp = world.to_mdp(GAMMA)
    optimum = float(mdp.start @ value_iteration(mdp))
    with one_thread():
        runs = [_learn_to_walk(mdp, seed) for seed in progress(range(SEEDS), "grid world")]
    curves = [[value / optimum for value in curve] for _, curve in runs]
    walks = {}
    for label, policy in (("before training", _walk_at_random), ("after training", runs[0][0])):
        rollout, final = collect(mdp, policy, 1, horizon=HORIZON, generator=torch.Generator().manual_seed(0))
        walks[label] = [[*rollout.observations[0][rollout.mask[0]].tolist(), int(final[0])]]
    exact = [float(objective(mdp, probabilities(mdp, policy).detach(), HORIZON)) / optimum for policy, _ in runs]
    return Section(
        "An agent learns from outcomes",
        "One reward, at the goal, and no demonstration. The agent walks at random, is told in the end whether it "
        "arrived, and an estimate of the gradient of its expected return does the rest. The same function will train "
        "a language model, with tokens as its steps. The optimum is computed, not estimated.",
        rows=[
            ("random walk, share of the best possible return", f"{curves[0][0]:.2f}"),
            (f"after {UPDATES * EPISODES:,} episodes, {SEEDS} seeds", " ".join(f"{share:.2f}" for share in exact)),
            ("steps of the episode shown, before → after", " → ".join(str(len(w[0]) - 1) for w in walks.values())),
        ],
        figure=_learning_figure(curves),
        html=animation(world, walks),
    )


def _walk_at_random(observations):
    return observations.new_zeros(*observations.shape, 4).float()


def _learn_to_walk(mdp, seed: int):
    """Actor-critic on one seed: (policy, exact expected return before each update and at the end)."""
    from ptlearn.grid.collection import collect
    from ptlearn.grid.mdp import objective, probabilities
    from ptlearn.policy_gradient import advantage
    from ptlearn.rl.policies import TabularCritic, TabularPolicy
    from ptlearn.rl.training import train_policy

    policy, critic = TabularPolicy(mdp.states, mdp.actions), TabularCritic(mdp.states)

    def exact() -> float:
        return float(objective(mdp, probabilities(mdp, policy).detach(), HORIZON))

    curve = [exact()]
    train_policy(
        policy,
        lambda policy, generator: collect(mdp, policy, EPISODES, horizon=HORIZON, generator=generator),
        lambda rollout, values, bootstrap, _: advantage(
            rollout.rewards, values, rollout.mask, bootstrap, gamma=GAMMA, lam=LAM
        ),
        updates=UPDATES, lr=0.3, critic=critic, gamma=GAMMA, lam=LAM, seed=seed,
        until=lambda *_: curve.append(exact()) is not None,
    )  # fmt: skip
    return policy, curve


def _learning_figure(curves: list[list[float]]) -> tuple[bytes, str]:
    from matplotlib.figure import Figure

    from ptlearn import figures

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    figures.learning_curves(axes, [EPISODES * i for i in range(UPDATES + 1)], curves, f"actor–critic, {SEEDS} seeds")
    axes.axhline(1, color=figures.COLORS[6], linestyle=":", label="optimum")
    axes.set(title="Learning to walk through four rooms", xlabel="episodes",
             ylabel="expected return / best possible", ylim=(-0.05, 1.05))  # fmt: skip
    axes.legend(loc="lower right")
    return _png(figure), (
        f"Exact expected return over the best possible against episodes, {SEEDS} seeds: from "
        f"{curves[0][0]:.2f} to between {min(c[-1] for c in curves):.2f} and {max(c[-1] for c in curves):.2f}."
    )


# learners, updates of each, and after how many it is asked; different sums in an update, answers to each
LEARNERS, STEPS, ASKED_EVERY, SUMS, ANSWERS = 3, 6, 2, 16, 8


def reinforcement_learning_on_text(lm) -> Section:
    """The assistant learns to add from a reward for right answers alone (C39, C40)."""
    from ptlearn.lm.devices import one_thread
    from ptlearn.pocket import tasks
    from ptlearn.statistics import over_seeds, wilson

    task = tasks.arithmetic()
    asked, _, overall, _, tuned = _assistant(lm)
    with one_thread():
        learned = [_learn_to_add(tuned, task, seed) for seed in progress(range(LEARNERS), "sums")]
        _, still = _responses(learned[0][0], asked)
        samples = _a_sum_before_and_after(task, tuned, learned[0][0])
    curves = [curve for _, curve in learned]
    before, ends = wilson(curves[0][0], len(task.held_out)), [curve[-1] for curve in curves]
    return Section(
        "Told only right or wrong, it learns to add",
        f"The assistant from above gets {before.mean:.0%} of new sums right. Now it tries {SUMS} sums at a time, "
        f"each {ANSWERS} times; a verifier pays 1 where the last number is right, and nobody shows it a solution. The "
        "rest is the same function that taught the agent to walk: a token is a step, and the text so far is the place "
        "where it stands. The sum shown is the first of the test that was wrong before and is right now.",
        samples,
        [
            ("held-out sums right, before", str(before)),
            (f"the same after {STEPS * SUMS * ANSWERS:,} answers of its own", str(over_seeds(ends))),
            (f"each of {LEARNERS} seeds", " ".join(f"{end:.2f}" for end in ends)),
            ("the ten use cases, before → after (first seed)", f"{overall['overall'].mean:.2f} → {still['overall']}"),
        ],
        _sums_figure(curves),
    )


def _learn_to_add(lm, task, seed: int):
    """RLOO on one seed: (a model that has learned, share of held-out sums right from the start to the end)."""
    from ptlearn.policy_gradient import episode_returns, leave_one_out, prompt_groups
    from ptlearn.rl.text_collection import sampled_scores, text_collector
    from ptlearn.rl.training import train_policy

    def weigh(rollout, *_):
        returns = episode_returns(rollout.rewards, rollout.mask)
        groups = prompt_groups(rollout.observations, rollout.mask)
        return (returns - leave_one_out(returns, groups=groups))[:, None] * rollout.mask

    learner = copy.deepcopy(lm)
    history = train_policy(
        learner, text_collector(task, prompts=SUMS, group=ANSWERS), weigh, updates=STEPS, lr=2e-4, clip_norm=1.0,
        seed=seed, evaluate=lambda learner: float(sampled_scores(task, learner).mean()), evaluate_every=ASKED_EVERY,
    )  # fmt: skip
    return learner, history.held_out


def _a_sum_before_and_after(task, before, after) -> list[tuple[str, str]]:
    """The likeliest answers of both to a held-out sum, with their rewards."""
    from ptlearn.pocket import assistant

    problems = task.held_out[:20]
    old, new = (assistant.respond(lm, [problem.prompt for problem in problems]) for lm in (before, after))
    gains = [problem.score(b) - problem.score(a) for problem, a, b in zip(problems, old, new, strict=True)]
    row = gains.index(max(gains))
    problem = problems[row]
    return [(f"{when}, reward {problem.score(text):.0f}\n{problem.prompt}\n", text)
            for when, text in (("before", old[row]), ("after", new[row]))]  # fmt: skip


def _sums_figure(curves: list[list[float]]) -> tuple[bytes, str]:
    from matplotlib.figure import Figure

    from ptlearn import figures

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    answers = [SUMS * ANSWERS * updates for updates in range(0, STEPS + 1, ASKED_EVERY)]
    figures.learning_curves(axes, answers, curves, f"RLOO, {LEARNERS} seeds")
    axes.set(title="Learning to add", xlabel="own answers, each told right or wrong",
             ylabel="held-out sums right", ylim=(0, 1.02), xticks=answers)  # fmt: skip
    axes.legend(loc="lower right")
    return _png(figure), (
        f"Share of held-out sums right against the number of own answers learned from, {LEARNERS} seeds: from "
        f"{curves[0][0]:.2f} to between {min(c[-1] for c in curves):.2f} and {max(c[-1] for c in curves):.2f}."
    )


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


STAGES: tuple[Callable[..., Section], ...] = (
    base_model, in_context_learning, supervised_finetuning, low_rank_adaptation, grid_world,
    reinforcement_learning_on_text,
)  # fmt: skip

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ptlearn: a tour</title><style>
body {{ font: 17px/1.55 Georgia, serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }}
h1, h2 {{ font-family: Helvetica, Arial, sans-serif; line-height: 1.2 }}
pre {{ background: #f5f5f2; padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere }}
pre b {{ color: #0072B2 }}
table {{ border-collapse: collapse; width: 100% }} td {{ border-top: 1px solid #ddd; padding: .4rem .6rem .4rem 0 }}
td:last-child {{ text-align: right; font-variant-numeric: tabular-nums }} img {{ max-width: 100% }}
</style></head><body><h1>ptlearn: a tour</h1>
<p>Everything on this page was measured on this machine by <code>{model}</code> in {seconds:.0f} seconds, without a
network. In the samples the prompt is black and the model's continuation is <b style="color:#0072B2">blue</b>; shares
come with their 95 % interval and n, of how many items or seeds they are.</p>
{sections}
<p>Next: <code>make lab</code>, and start with lesson 00.</p></body></html>
"""


def page(sections: list[Section], model: str, seconds: float) -> str:
    """The sections as one self-contained HTML page."""
    return PAGE.format(model=escape(model), seconds=seconds, sections="\n".join(map(_html, sections)))


def _html(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>"]
    parts += [f"<pre>{escape(prompt)}<b>{escape(text)}</b></pre>" for prompt, text in section.samples]
    if section.figure:
        png, alt = section.figure
        parts.append(picture_tag("image/png", png, alt))
    if section.rows:
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in section.rows)
        parts.append(f"<table>{cells}</table>")
    parts.append(section.html)
    return "\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run the stages, print what they find, and write `tour.html` and a PNG for each figure."""
    parser = argparse.ArgumentParser(prog="ptlearn tour", description="The course in miniature, on one page.")
    parser.add_argument("--model", default="pocket-m", help="a pocket model, a local folder or a hub id (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("tour"), help="folder for the page and the figure (%(default)s)"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written to is said now, not after the stages
    started = time.perf_counter()
    from ptlearn.lm.models import load_lm

    lm = load_lm(options.model)
    sections = []
    for number, stage in enumerate(STAGES, 1):
        print(f"[{number}/{len(STAGES)}] {stage.__doc__.splitlines()[0]}", flush=True)
        section = stage(lm)
        sections.append(section)
        for prompt, text in section.samples:
            print(_indented(f"{prompt}▸{text}"))
        for name, value in section.rows:
            print(f"    {name:48s} {value}")
    written = [options.out / "tour.html"]
    written[0].write_text(page(sections, options.model, time.perf_counter() - started), encoding="utf-8")
    for stage, section in zip(STAGES, sections, strict=True):
        if section.figure:
            written.append(options.out / f"{stage.__name__}.png")
            written[-1].write_bytes(section.figure[0])
    print(f"Wrote {', '.join(map(str, written))} in {time.perf_counter() - started:.0f} s.")
    return 0


def _indented(text: str) -> str:
    return "\n".join(f"    | {line}" for line in text.splitlines())
