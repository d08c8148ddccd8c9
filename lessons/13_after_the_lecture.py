# Lesson 13: after the lecture. jupytext py:percent; runs as a script: python lessons/13_after_the_lecture.py --help

# %% [markdown]
# # 13 · After the lecture: RLOO, PPO, GRPO, reward models, DPO
#
# The lecture ends where today's recipes begin. Their names fill papers, and each is a small change of what you have
# built: another weight in the same loss, or another source of rewards. In this lesson you write what is new in each,
# run them all on one task, and see the trap that nearly all of them share: a reward that was *learned* can be fooled,
# and a policy that is trained against it will find out how. *(The lecture stops before all of this; its "Summary" of
# reinforcement learning is what you need of it.)* About 100 minutes; runs in 100 s on two CPU cores.
#
# **You will need** lesson 12; the ratio and the clip of lesson 11. **You will be able to** say in one line what RLOO,
# PPO, GRPO, Dr. GRPO and DPO change; estimate a KL divergence and put it where its gradient is right; train a reward
# model from pairs; recognise reward hacking, and hold it off.

# %%
from ptlearn.course.session import arguments, progress, show  # first: from here on, Ctrl-C is one line

import copy
from dataclasses import replace

import torch
from matplotlib import pyplot
from torch.nn.functional import cosine_similarity, logsigmoid

from ptlearn import figures
from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import check
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions
from ptlearn.optimization import score_actions
from ptlearn.pocket import tasks
from ptlearn.rl import preferences
from ptlearn.rl.enumeration import enumerate_texts
from ptlearn.rl.preferences import RewardModel, fit_reward_model, label_pairs, model_rewards, paid_by
from ptlearn.rl.text_collection import attempt, collect_text, pay
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs
from ptlearn.statistics import over_seeds

args = arguments(
    "After the lecture: RLOO, PPO, GRPO, Dr. GRPO, KL, reward models and their hacking, best-of-n, DPO.",
    model=("pocket-s", "the language model: a pocket model, a folder or a hub id"),
    error_rate=(0.1, "share of the pairs that are labelled wrongly", "at least 0, below 0.5"),
    prompts=(8, "different openings per update", "at least 1"),
    group=(4, "completions per opening", "at least 2"),
    updates=(8, "where the judge pays", "at least 1"),
    lr=(6e-4, "step size of Adam where the judge pays", "above 0"),
    model_updates=(18, "where a reward model pays", "at least 1"),
    model_lr=(1e-3, "step size of Adam where a reward model pays", "above 0"),
    beta=(0.5, "what a nat of KL costs, in rewards", "above 0"),
    dpo_epochs=(4, "of DPO over its pairs", "at least 1"),
    seeds=(5, "reward models and what learns from them; where the judge pays, three", "at least 2"),
    seed=(0, "of everything that is sampled", "at least 0"),
)
torch.set_num_threads(1)  # the tensors are small: a second thread would spend its time waiting for the first

# %% [markdown]
# ## Predict first
#
# 1. RLOO, GRPO and Dr. GRPO weigh the same 32 answers. **Do their weights differ in sign, in order, or in size?**
# 2. To estimate KL(policy ‖ reference) from the policy's samples, one may average $-\log r$ or $r - 1 - \log r$, with
#    $r$ = reference / policy: both are unbiased. **Can you subtract either one from the rewards?**
# 3. A reward model has learned from 250 pairs, a tenth of them labelled wrongly, and ranks two new pairs out of three
#    as the judge does. **You train a policy against it on 576 of its own completions: what does the true reward do?**
# 4. DPO needs the pairs alone, no reward model and no sampling. **Is it better or worse than RL?**
#
# ## One task
# Reviews, as the pretraining corpus has them: the model gets the first sentence, `My sister found this hotel.`, and
# goes on. It should go on with **praise**. The *judge* is a program that knows every sentence with which the corpus
# praises a film, a book, a meal or a hotel. It pays the share of such sentences in a completion, of two at least.
# Praise that is said twice is not paid at all, nor is anything else, such as a string of good words; a last sentence
# without its full stop is not looked at. In life the judge is a person, too slow and too dear to be asked a thousand
# times. Ours may be asked as often as we like, and that is how we shall see what those who cannot ask do not see.

# %%
base = load_lm(args.model)
task = replace(tasks.sentiment(), max_new_tokens=20)
short = replace(task, max_new_tokens=10)  # what will be shown to those who compare
sample = attempt(task, base, task.held_out[:4], seed=args.seed)
for problem, text, paid in zip(task.held_out, completions(base, sample, task.stop), sample.rewards.sum(1)):
    print(f"{paid:.2f}  {problem.prompt} -> {text}")

# %%
def judged(lm, samples=8):
    """A policy's true reward on openings that nobody trains on, and its KL to the base in nats per completion."""
    rollout = attempt(task, lm, [problem for problem in task.held_out for _ in range(samples)], seed=args.seed + 1)
    before, _ = score_actions(base, rollout, None)
    kl = pg.kl_estimates(rollout.logprobs, before, rollout.mask).k1.sum(1).mean()
    return float(rollout.rewards.sum(1).mean()), float(kl)


start, _ = judged(base, samples=16)
print(f"the base model's true reward on held-out openings: {start:.2f}")

# %% [markdown]
# ## Four names, one batch
# Three of these sample a group of $n$ completions for each prompt and compare them with each other:
#
# - **RLOO** (Ahmadian et al., 2024): the reward minus the mean of the *other* completions.
# - **GRPO** (Shao et al., 2024): minus the mean of the group, divided by the group's standard deviation; and the sum
#   over each completion's tokens divided by its length (lesson 12's "per sequence").
# - **Dr. GRPO** (Liu et al., 2025): GRPO without these two divisions.
# - **PPO** (Schulman et al., 2017): several epochs on one batch, with lesson 11's clip on the ratio of each token. On
#   language models its advantages come from a critic, as a rule (lesson 10).
#
# A published recipe is a bundle. GRPO and Dr. GRPO clip as PPO does, and GRPO has a KL in its loss, of which more
# below. Here each name stands for the one thing that is new in it, and everything else is alike: sums are divided by
# the number of completions, PPO has RLOO's advantages, and it alone takes a second epoch and clips.

# %% ex="13.1" points=2 difficulty="easy" minutes=8
def group_advantages(rewards, groups):
    """The advantage of each completion, by two names.

    rewards (B,) float; groups (B,) int, the number of each row's prompt, at least two rows each, in any order
    -> a dict of two (B,): "Dr. GRPO", the reward minus the mean of its group, the row itself included; "GRPO", the same
    divided by (the group's standard deviation, with n − 1 in its denominator, plus 1e-6).
    """
    # BEGIN SOLUTION
    centred, scaled = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for group in groups.unique():
        rows = groups == group
        centred[rows] = rewards[rows] - rewards[rows].mean()
        scaled[rows] = centred[rows] / (rewards[rows].std() + 1e-6)
    return {"Dr. GRPO": centred, "GRPO": scaled}
    # END SOLUTION

# %% ex="13.1" role="check"
group_advantages = check("13.1", group_advantages)

# %% [markdown] ex="13.1" role="hints"
# <details><summary>Hint 1</summary>A loop over <code>groups.unique()</code> is fine: pick the rows of one group, and
# write their advantages into a result of zeros.</details>
# <details><summary>Hint 2</summary>The <code>std()</code> of torch has n − 1 in its denominator already. Where all
# rewards of a group are equal it is 0, and then 1e-6 keeps 0 / 0 away.</details>

# %%
def raw(rollout, *_):
    return pg.total_return(rollout.rewards, rollout.mask)


def rloo(rollout, *_):
    """Lesson 12: the reward minus the mean of the others, on each token."""
    won = pg.episode_returns(rollout.rewards, rollout.mask)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return (won - pg.leave_one_out(won, groups=groups))[:, None] * rollout.mask


def by_name(name):
    def weigh(rollout, *_):
        won = pg.episode_returns(rollout.rewards, rollout.mask)
        groups = pg.prompt_groups(rollout.observations, rollout.mask)
        return group_advantages(won, groups)[name][:, None] * rollout.mask

    return weigh


def ppo(rollout, values, bootstrap, logprobs):
    ratios = pg.step_ratio(logprobs, rollout.logprobs, rollout.mask)
    return pg.clipped_weights(ratios, rloo(rollout), epsilon=0.2)


NAMES = {"reward alone": (raw, 1), "RLOO": (rloo, 1), "Dr. GRPO": (by_name("Dr. GRPO"), 1),
         "GRPO": (by_name("GRPO"), 1), "PPO": (ppo, 2)}  # what weighs, epochs per batch  # fmt: skip
generator = torch.Generator().manual_seed(args.seed)
batch, _ = collect_text(task, base, prompts=args.prompts, group=args.group, generator=generator)
found = {name: weigh(batch, None, None, batch.logprobs).sum(1) / batch.mask.sum(1)
         for name, (weigh, _) in NAMES.items()}  # fmt: skip
print("prompt  reward   " + "".join(f"{name:>14s}" for name in found))
for row, reward in enumerate(batch.rewards.sum(1)[: 3 * args.group]):
    print(f"{row // args.group:6d} {reward:7.2f}   " + "".join(f"{weights[row]:14.2f}" for weights in found.values()))
assert torch.allclose(found["Dr. GRPO"], found["RLOO"] * (1 - 1 / args.group), atol=1e-5)
assert torch.allclose(found["PPO"], found["RLOO"])  # at the first epoch every ratio is 1

# %% [markdown]
# **What you saw.** Signs and order within a group are the same in all four. Dr. GRPO is RLOO times $1 - 1/n$: the row
# itself in the mean costs that factor, no more (lesson 09). GRPO makes groups alike: those whose completions hardly
# differ are blown up to the size of the others. PPO starts as RLOO and differs only from the second epoch on. Does
# any of this matter for what is learned? Same seeds, as many completions per update.

# %%
def learner(weigh, seed, *, epochs=1, model=None, beta=0.0):
    """A policy that learned, its history, and the true reward of each of its batches; paid by the judge or a model."""
    lm, truths = copy.deepcopy(base), []

    def watched(policy, generator):
        rollout, last = collect_text(task, policy, prompts=args.prompts, group=args.group, generator=generator)
        truths.append(float(rollout.rewards.sum(1).mean()))
        return rollout, last

    if model is None:
        about = {"collect": watched, "updates": args.updates, "lr": args.lr}
    else:
        about = {"collect": paid_by(model, watched), "updates": args.model_updates, "lr": args.model_lr}
        about |= {"reference": base, "beta": beta}
    return lm, train_policy(lm, weigh=weigh, epochs=epochs, clip_norm=1.0, seed=seed, **about), truths


SEEDS = range(args.seed, args.seed + args.seeds)
paid = {name: [learner(weigh, seed, epochs=epochs) for seed in progress(SEEDS[:3], name)]
        for name, (weigh, epochs) in NAMES.items()}  # fmt: skip
table = {name: [judged(lm) for lm, _, _ in runs] for name, runs in paid.items()}
print(f"paid by the judge, {args.updates} updates of {args.prompts} × {args.group}; before: {start:.2f}")
for name, ends in table.items():
    print(f"{name:12s} true reward {over_seeds([truth for truth, _ in ends])}, "
          f"KL to the base {over_seeds([kl for _, kl in ends])} nats")  # fmt: skip
shortest = min(norm for runs in paid.values() for _, history, _ in runs for norm in history.gradient_norm)
print(f"shortest gradient of all, before it is clipped to 1: {shortest:.1f}")

# %% [markdown]
# **What you saw.** All of them learn, and no difference among the four names is larger than the spread over seeds.
# Dr. GRPO's runs *are* RLOO's: each gradient here is clipped to length 1, and then a common factor of the weights is
# gone. The reward alone has the lowest mean, but not for certain from three seeds: rewards between 0 and 1 are a mild
# case, as in lesson 12. The names matter less than their papers' titles suggest; the number of steps, their size and
# the distance from the start matter more.
#
# ## How far from where it began?
# The last column is new: the KL divergence of the policy from the model it started from, the *reference*,
# $$\mathrm{KL}(\pi_\theta \,\|\, \pi_\mathrm{ref}) =
# \mathbb{E}_{\tau \sim \pi_\theta}\Big[\log\frac{\pi_\theta(\tau)}{\pi_\mathrm{ref}(\tau)}\Big].$$
# Nearly every recipe holds it down: it maximises $J(\theta) - \beta\,\mathrm{KL}$. From samples it is estimated token
# by token, and there are three habits (Schulman, 2020). With $r = \pi_\mathrm{ref}(a_t \mid s_t) / \pi_\theta(a_t
# \mid s_t)$:
# $$k_1 = -\log r, \qquad k_2 = \tfrac12 (\log r)^2, \qquad k_3 = r - 1 - \log r.$$

# %% ex="13.2" points=2 difficulty="easy" minutes=8
def kl_estimates(logprobs, reference_logprobs, mask):
    """Three estimates of KL(policy || reference), for each token that the policy sampled.

    logprobs, reference_logprobs (B, T) nats, of the same tokens, anything where mask is False; mask (B, T) bool
    -> a dict of three (B, T), "k1", "k2" and "k3", 0 where mask is False.
    """
    # BEGIN SOLUTION
    log_r = torch.where(mask, reference_logprobs - logprobs, 0)
    return {"k1": -log_r, "k2": log_r**2 / 2, "k3": log_r.exp() - 1 - log_r}
    # END SOLUTION

# %% ex="13.2" role="check"
kl_estimates = check("13.2", kl_estimates)

# %% [markdown] ex="13.2" role="hints"
# <details><summary>Hint 1</summary>log r is a difference of two log-probabilities: the reference's minus the
# policy's. All three follow from it.</details>
# <details><summary>Hint 2</summary>If log r is 0 where mask is False, so are all three: cut it off once, at the
# beginning.</details>

# %%
learned = paid["RLOO"][0][0]
rollout = attempt(task, learned, [problem for problem in task.held_out for _ in range(8)], seed=args.seed + 2)
before, _ = score_actions(base, rollout, None)
with torch.no_grad():  # the exact KL of each choice, summed over the whole vocabulary
    exact = torch.where(rollout.mask, pg.kl_divergence(learned(rollout.observations), base(rollout.observations)), 0)
print(f"{len(exact)} completions of a policy that learned from the judge, nats per completion")
print(f"exact over the vocabulary, along the samples   {exact.sum(1).mean():6.2f}   std {exact.sum(1).std():6.2f}")
for name, each in kl_estimates(rollout.logprobs, before, rollout.mask).items():
    print(f"{name:45s}  {each.sum(1).mean():6.2f}   std {each.sum(1).std():6.2f}   lowest {each.sum(1).min():6.2f}")

# %% [markdown]
# The sum over the whole vocabulary has the least noise, and it is at hand wherever the logits of both models are. $k_2$
# is more than twice the truth, for the policy is far from the reference already. $k_3$ is never negative for a single
# token, and its noise is small where the ratio is near 1; here, farther away, it is noisier than $k_1$.
#
# Now the question that matters more: **where does the penalty go?** Some subtract it from the rewards, others add it to
# the loss and differentiate it. In a toy world, where all texts can be listed as in lesson 12, every variant's expected
# gradient is a sum. Four words, one of them the end, three steps, two prompts: 80 texts. Every "c" pays a third.

# %%
TOY_BETA = 0.2
reference = toy_lm(["end", "a", "b", "c"])
every, chance = enumerate_texts(reference, ["a b", "c"], max_new_tokens=3)
every = pay(every, [text.split().count("c") / 3 for text in completions(reference, every)])
returns, two = pg.episode_returns(every.rewards, every.mask), pg.prompt_groups(every.observations, every.mask)
with torch.no_grad():
    known = action_logprobs(reference, every)  # the reference's, for good


def chances(lm):
    """The probability of each text, with gradient, and the log-probability of each token."""
    logprobs = action_logprobs(lm, every)
    return logprobs.sum(1).exp() / 2, logprobs


def slope(lm, value):
    parts = torch.autograd.grad(value, list(lm.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def ascend(weigh, steps=200, lr=1e-2):
    """A copy of the reference that followed weigh(chance, logprobs), how often a text comes times its weight."""
    lm = copy.deepcopy(reference)
    adam = torch.optim.Adam(lm.parameters(), lr=lr)
    for _ in range(steps):
        chance, logprobs = chances(lm)
        weights = weigh(chance.detach(), logprobs.detach())
        loss = pg.policy_gradient_loss(logprobs, weights, every.mask, normalizer=1)
        adam.zero_grad(), loss.backward(), adam.step()
    return lm


policy = ascend(lambda chance, _: chance[:, None] * pg.total_return(every.rewards, every.mask), steps=6)
chance, logprobs = chances(policy)
KL = (chance * (logprobs - known).sum(1)).sum()
grad_KL, k = slope(policy, KL), pg.kl_estimates(logprobs, known, every.mask)
print(f"a policy six steps from the reference: KL {KL:.4f} nats")
for name, each in k._asdict().items():
    print(f"mean of {name} {float(chance.detach() @ each.sum(1)):.4f}")

# %%
PLACES = {
    "k1 in the rewards": pg.total_return(k.k1, every.mask),
    "k3 in the rewards": pg.total_return(k.k3, every.mask),
    "k1 in the loss": 1.0 * every.mask,  # d k1 = d log π
    "k2 in the loss": k.k1,  # d k2 = log(π / ref) d log π
    "k3 in the loss": (1 - (known - logprobs.detach()).exp()) * every.mask,  # d k3 = (1 − r) d log π
}
print("expected gradient     cosine with ∇KL   length relative to it")
for name, weights in PLACES.items():
    found = slope(policy, (chance.detach()[:, None] * weights * logprobs).sum())
    ratio = found.norm() / grad_KL.norm()
    cosine = f"{cosine_similarity(found, grad_KL, 0):17.4f}" if ratio > 1e-9 else f"{'none':>17s}"
    print(f"{name:18s} {cosine} {ratio:23.4f}")

# %% [markdown]
# **What you saw.** Each place, too, is a weight in the same loss. The gradient of a mean over the policy's own
# samples has two parts: other samples come, which a penalty in the rewards sees; and the same sample is charged
# otherwise, which a penalty in the loss sees. For $k_1$ the second part is **nothing**, the mean of $\nabla \log \pi$
# (lesson 08). So $k_1$ in the rewards has exactly the gradient of the KL, and in the loss it does nothing. $k_3$, just
# as unbiased, needs both parts. In the rewards alone it points **away** from where it should; in the loss alone,
# GRPO's choice, it is the gradient of the KL the other way round, token by token: roughly the right direction, another
# length. $k_2$ in the loss counts each token's own KL but not where the token leads. An unbiased estimate of a value
# need not have an unbiased gradient.
#
# So this course subtracts $\beta k_1$ from the rewards, as Ouyang et al. (2022) did, and then it is any other reward:
# RLOO, critics and clips apply.
#
# ## Rewards from pairs
# People find it hard to put a number on a text, but they can say which of two they like better. Bradley and Terry's
# model makes numbers of it: $P(y \succ y') = \sigma(r(y) - r(y'))$. A **reward model** is a language model with one
# number as output, fitted by the likelihood of the choices,
# $$L = -\frac1P \sum_{(y, y')} \log \sigma\big(r(y) - r(y')\big), \quad y \text{ chosen}, \; y' \text{ rejected}.$$

# %% ex="13.3" points=2 difficulty="easy" minutes=8
def preference_loss(rewards, chosen, rejected):
    """How surprising the choices are, nats per pair: the loss of a reward model.

    rewards (B,) float, one per completion, which may be thousands apart; chosen, rejected (P,) int, the numbers of the
    two completions of each pair -> a scalar with the gradient of rewards.
    """
    # BEGIN SOLUTION
    return -logsigmoid(rewards[chosen] - rewards[rejected]).mean()
    # END SOLUTION

# %% ex="13.3" role="check"
preference_loss = check("13.3", preference_loss)

# %% [markdown] ex="13.3" role="hints"
# <details><summary>Hint 1</summary><code>rewards[chosen]</code> has one reward for each pair. The sigma is taken of a
# difference of two of them.</details>
# <details><summary>Hint 2</summary>The sigmoid of −1000 is 0, and the logarithm of 0 is −∞. torch has both steps in
# one function.</details>

# %%
def reward_model(seed):
    """A reward model from pairs of short completions of the base model, the pairs, and how well it ranks new ones."""
    generator = torch.Generator().manual_seed(1000 + seed)
    shown, _ = collect_text(short, base, prompts=16, group=8, generator=generator)
    pairs = label_pairs(shown, error_rate=args.error_rate, seed=seed)
    model = RewardModel(copy.deepcopy(base))
    fit_reward_model(model, pairs, epochs=4, lr=1e-3, seed=seed)
    ranked = [preferences.accuracy(model_rewards(model, new.rollout), new.chosen, new.rejected) for new in NEW]
    return model, pairs, ranked


generator = torch.Generator().manual_seed(args.seed + 3)
NEW = [label_pairs(collect_text(about, base, prompts=16, group=8, generator=generator)[0]) for about in (short, task)]
models = [reward_model(seed) for seed in progress(SEEDS, "reward models")]
print(f"{args.seeds} reward models, {len(models[0][1].chosen)} pairs the first, {args.error_rate:.0%} labelled wrongly")
for name, place in (("short, as those it learned from", 0), ("whole completions", 1)):
    print(f"new pairs, {name}: ranked as the judge does {over_seeds([ranked[place] for _, _, ranked in models])}")

# %% [markdown]
# **What you saw.** Better than a coin, and no more: 250 labels are few, and five sets of them make five rather
# different models. On whole completions, twice as long as what they have seen, they do a little worse still. Would you
# let one teach?
#
# ## You get what you pay for
# Now the reward model pays, and the judge only watches. Five seeds, each with its own pairs, reward model and learner;
# first without a penalty, then with $\beta$ = 0.5 per nat. The steps are larger than above, so that everything
# happens within 18 updates.

# %%
def chase(beta):
    """A learner against each of the reward models."""
    pairs = zip(progress(SEEDS, f"β = {beta}"), models)
    return [learner(rloo, seed, model=model, beta=beta) for seed, (model, _, _) in pairs]


chased = {beta: chase(beta) for beta in (0.0, args.beta)}
for beta, runs in chased.items():
    table[f"reward model, β = {beta}"] = ends = [judged(lm) for lm, _, _ in runs]
    paid_at = [f"{history.returns[0]:+.1f} → {history.returns[-1]:+.1f}" for _, history, _ in runs]
    print(f"β = {beta}: the model's reward  ", "   ".join(f"{change:12s}" for change in paid_at))
    print("         true reward at the end", "   ".join(f"{truth:12.2f}" for truth, _ in ends))

# %%
figure, panels = pyplot.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for index, (beta, runs) in enumerate(chased.items()):
    for axes, curves in zip(panels, ([h.returns for _, h, _ in runs], [truths for _, _, truths in runs],
                                     [h.kl for _, h, _ in runs])):  # fmt: skip
        figures.learning_curves(axes, range(args.model_updates), curves, f"β = {beta}", index)
panels[1].axhline(start, color="black", linestyle=":", label="before")
for axes, title, label in zip(panels, ("What it is paid", "What it is worth", "How far it went"),
                              ("the model's reward", "true reward", "KL to the base, nats")):  # fmt: skip
    axes.set(title=title, xlabel="updates", ylabel=label)
panels[1].set(ylim=(-0.05, 1.05)), panels[1].legend(fontsize=8), panels[0].legend(fontsize=8)
ends = {beta: [over_seeds(x).mean for x in zip(*table[f"reward model, β = {beta}"])] for beta in chased}
outcome = "; ".join(f"with β = {beta} it ends at {truth:.2f}, {kl:.0f} nats away" for beta, (truth, kl) in ends.items())
show(figure, alt="Three panels against updates, with and without KL penalty: the model's reward, the true reward, and "
     f"the KL. The true reward begins at {start:.2f}; {outcome}.")  # fmt: skip

# %%
for beta, runs in chased.items():
    lm, model = runs[0][0], models[0][0]
    seen = attempt(task, lm, task.held_out[:3], seed=args.seed + 4)
    print(f"β = {beta}")
    for problem, text, truth, belief in zip(task.held_out, completions(lm, seen, task.stop), seen.rewards.sum(1),
                                            model_rewards(model, seen)):  # fmt: skip
        print(f"    judge {truth:.2f}, model {belief:+.1f}: {problem.prompt} -> {text}")

# %% [markdown]
# **What you saw.** Without the penalty, what the policy is paid rises in every run. What it is worth rises for a few
# updates in most of them, turns, and ends far below its start in all five. Read the samples: the reward model has
# learned that "it exceeded all my expectations" and "gem" are good signs, and they were, in completions of the base
# model. That nobody says a thing three times, or ends it with "gem", it never had to learn, for the base model does
# not write so. The policy has left the region that its reward model knows. This is **reward hacking**, or
# overoptimisation (Gao et al., 2023), and an instance of Goodhart's law: a measure that becomes the target stops
# being a good measure.
#
# With the penalty the policy stays within about four nats of the base, where the reward model can be trusted
# somewhat, and all five end above the start. The penalty does not make a bad reward model better; it keeps you from
# following it too far. And mind that in life there is no middle panel. The right one you have: watch the KL (a
# learner's log has $k_3$), and read what your policy writes.
#
# ## Choose instead of learn: best of n
# The simplest use of a reward model trains nothing: sample $n$ completions and take the one it likes best. From $N$
# samples with scores and truths the expected truth of the best of $n$ (drawn with putting back) can be computed
# without drawing: the completion at rank $i$ of $N$ is the best of $n$ with probability $(i/N)^n - ((i-1)/N)^n$. And
# whatever the scores, its KL to the base is at most $\log n - (n-1)/n$ nats (Beirami et al., 2024).

# %% ex="13.4" points=2 difficulty="medium" minutes=10
def best_of(scores, truths, n):
    """The mean truth of the completion with the highest score among n that are drawn from N, with putting back.

    scores, truths (N,) float, no two scores equal; n, at least 1 -> a number.
    """
    # BEGIN SOLUTION
    count = len(scores)
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    chance = (rank / count) ** n - ((rank - 1) / count) ** n
    return float(chance @ truths[scores.argsort()].double())
    # END SOLUTION

# %% ex="13.4" role="check"
best_of = check("13.4", best_of)

# %% [markdown] ex="13.4" role="hints"
# <details><summary>Hint 1</summary>Sort the truths by their scores: <code>truths[scores.argsort()]</code>. Then the
# entry at place i belongs to rank i + 1.</details>
# <details><summary>Hint 2</summary>All n draws have rank i or lower with probability (i/N)<sup>n</sup>; the best has
# rank i exactly if they have, and not all of them i − 1 or lower.</details>

# %%
NS = (1, 2, 4, 8, 16, 32)
pool = attempt(task, base, [problem for problem in task.held_out for _ in range(64)], seed=args.seed + 5)
truths = pool.rewards.sum(1).view(len(task.held_out), 64)


def best_curve(scores):
    """The mean truth for each n, over the openings; scores as truths."""
    return [sum(best_of(s, t, n) for s, t in zip(scores, truths)) / len(truths) for n in NS]


judge_picks = best_curve(truths)
model_picks = [best_curve(model_rewards(model, pool).view_as(truths)) for model, _, _ in models]
for n, top, *picked in zip(NS, judge_picks, *model_picks):
    print(f"best of {n:2d}: KL at most {preferences.best_of_n_kl(n):.2f} nats; picked by the judge {top:.2f}, "
          f"by a reward model {over_seeds(picked)}")  # fmt: skip
table["best of 16 by model"] = [(curve[NS.index(16)], preferences.best_of_n_kl(16)) for curve in model_picks]

# %%
figure, axes = pyplot.subplots(figsize=(5.6, 3.2))
steps = [preferences.best_of_n_kl(n) for n in NS]
figures.curve(axes, steps, [over_seeds(picked) for picked in zip(*model_picks)], "best of n, by a reward model", 0)
for index, (beta, runs) in enumerate(chased.items()):
    far = [over_seeds(x) for x in zip(*(h.kl for _, h, _ in runs))]
    worth = [over_seeds(x) for x in zip(*(truths for _, _, truths in runs))]
    axes.plot([x.mean for x in far], [x.mean for x in worth], figures.MARKERS[index + 1], markersize=3.5,
              color=figures.COLORS[index + 1], label=f"RL, β = {beta}: each update")  # fmt: skip
axes.axhline(start, color="black", linestyle=":", label="base")
axes.set(title="What a nat buys", xlabel="KL to the base, nats per completion", ylabel="true reward",
         xscale="symlog", xlim=(-0.05, 200), ylim=(0, 1.02))  # fmt: skip
axes.legend(fontsize=8, loc="lower left")
last = over_seeds([curve[-1] for curve in model_picks]).mean
show(figure, alt=f"True reward against KL: best of n ends at {last:.2f} and {steps[-1]:.1f} nats. RL, a point for each "
     f"update: {outcome}.")  # fmt: skip

# %% [markdown]
# **What you saw.** Picked by the judge, one of 16 is nearly always fine. Picked by the reward models, the curve rises
# to about 0.7 and flattens, but does not fall: the best of 32 is still something that the base model writes, and there
# the reward model knows its way. (With thousands to choose from, it can be fooled in this way too: Gao et al., 2023.)
# In nats it is the cheapest road. It costs $n$ samples for every answer, for ever, while learning pays once. RL
# without the penalty turns before it is as high, whatever number of updates you choose.
#
# ## The best policy, and how to reach it without a reward model
# What does $J - \beta\,\mathrm{KL}$ want? The answer has a closed form: of all distributions over texts the best is
# $$\pi^*(y \mid x) \propto \pi_\mathrm{ref}(y \mid x)\, \exp\big(r(x, y) / \beta\big).$$
# Turn it over: any policy is the best one for *some* reward, $r(x, y) = \beta \log \frac{\pi(y \mid
# x)}{\pi_\mathrm{ref}(y \mid x)}$, up to a number for each prompt, which cancels in a pair. **DPO** (Rafailov et al.,
# 2023) puts this *implicit reward* into the loss of a reward model and trains the policy directly. Its gradient is
# the one loss of this course: each pair pushes the tokens of the chosen completion up and those of the rejected one
# down, by
# $$\beta\, \sigma(-m), \qquad m = \beta \Big(\log \frac{\pi(y)}{\pi_\mathrm{ref}(y)} - \log
# \frac{\pi(y')}{\pi_\mathrm{ref}(y')}\Big).$$

# %% ex="13.5" points=2 difficulty="medium" minutes=10
def dpo_push(chosen, rejected, beta):
    """DPO as a weight: how hard each pair pushes its chosen completion up (and its rejected one down).

    chosen, rejected (P,) float, log π − log π_ref of the two completions of each pair, with gradient; beta, a number
    -> (P,) without gradient.
    """
    # BEGIN SOLUTION
    margin = beta * (chosen - rejected).detach()
    return beta * torch.sigmoid(-margin)
    # END SOLUTION

# %% ex="13.5" role="check"
dpo_push = check("13.5", dpo_push)

# %% [markdown] ex="13.5" role="hints"
# <details><summary>Hint 1</summary>The slope of −log σ(m) is −σ(−m): a pair that is settled, with a large m, hardly
# pushes any more.</details>
# <details><summary>Hint 2</summary>m has a β in it, so the chain rule puts another one in front. Weights carry no
# gradient: <code>detach()</code>.</details>

# %% [markdown]
# First in the toy world, where both roads can be walked to the end without noise: RL on $J - \beta\,\mathrm{KL}$,
# with the penalty in the rewards, and DPO on all pairs of texts, labelled as Bradley and Terry say. Both start from
# the reference.

# %%
def penalized(chance, logprobs):
    k1 = pg.kl_estimates(logprobs, known, every.mask).k1
    return chance[:, None] * pg.total_return(every.rewards - TOY_BETA * k1, every.mask)


drawn = known.sum(1).exp() / 2  # the reference's probability of each text
together = (two[:, None] == two) * drawn[:, None] * drawn  # pairs of a prompt, as often as the reference makes them
together = together / together.sum() * torch.sigmoid(returns[:, None] - returns)  # and as often as the first one wins


def direct(_, logprobs):
    ratios = (logprobs - known).sum(1)
    chosen, rejected = torch.broadcast_tensors(ratios[:, None], ratios)
    push = together * dpo_push(chosen.flatten(), rejected.flatten(), TOY_BETA).view_as(together)
    return (push.sum(1) - push.sum(0))[:, None] * every.mask  # as the chosen one of its pairs, as the rejected one


best = torch.empty_like(drawn)
for prompt in (0, 1):
    rows = two == prompt
    best[rows] = preferences.best_policy(2 * drawn[rows], returns[rows], beta=TOY_BETA) / 2


def account(chance):
    """J, KL and J − β KL of a distribution over the 80 texts."""
    J, KL = float(chance @ returns), float((chance * (chance.log() - drawn.log())).sum())
    return f"J {J:.3f}   KL {KL:.3f}   J − β KL {J - TOY_BETA * KL:.4f}"


print(f"the reference          {account(drawn)}")
print(f"closed form            {account(best)}")
for name, weigh in (("RL with the penalty", penalized), ("DPO on pairs", direct)):
    reached = chances(ascend(weigh, steps=300))[0].detach()
    print(f"{name:22s} {account(reached)}   total variation to the closed form {(reached - best).abs().sum() / 2:.3f}")

# %% [markdown]
# **What you saw.** Two roads, one place: the closed form, which neither was told. Now DPO on the reviews, from exactly
# the pairs that the reward models learned from. No completion is sampled, no reward model is needed.

# %%
def direct_learner(pairs, seed):
    lm = copy.deepcopy(base)
    preferences.fit_dpo(lm, pairs, beta=0.1, epochs=args.dpo_epochs, lr=1e-4, clip_norm=1.0, seed=seed)
    return lm


table["DPO"] = [judged(direct_learner(pairs, seed)) for seed, (_, pairs, _) in zip(progress(SEEDS[:3], "DPO"), models)]
print(f"DPO: true reward {over_seeds([truth for truth, _ in table['DPO']])} from {start:.2f}")

# %% [markdown]
# ## All of them in one table

# %%
print(f"{'':24s}{'true reward':26s}{'KL to the base, nats':30s}learns from")
print(f"{'base model':24s}{f'{start:.2f}':26s}{'0.00':30s}text")
for name, ends in table.items():
    truth, kl = (over_seeds(values) for values in zip(*ends))
    far = f"at most {kl.mean:.2f}" if name.startswith("best") else str(kl)
    print(f"{name:24s}{truth!s:26s}{far:30s}{'the judge' if name in NAMES else 'pairs'}")

# %% [markdown]
# **What you saw.** Those who are paid by the judge get furthest, of course: they ask it 256 times while they learn.
# From some 250 labels, wrong ones included, three roads lead to about 0.7: RL against a reward model held near the
# base, best of $n$, and DPO, which needs neither reward model nor sampling. And one
# leads to nearly 0. DPO is not safe from that either: with 20 epochs over the same pairs (`--dpo-epochs 20`) it ends
# at 0.06 to 0.19, 35 to 44 nats from the base, in three seeds out of three. This is one task and a small model; which
# road is best at scale is an open argument.
#
# ## Lab: silent bugs
# Four trainers maximise $J - \beta\,\mathrm{KL}$ in the toy world. Each has one bug, none raises an error, and all of
# them report a KL. Here is what they do with a text's rewards and log-ratios $\log \pi - \log \pi_\mathrm{ref}$.

# %%
def total(x):
    return x.sum(1, keepdim=True) * every.mask


def weights_right(rewards, log_ratios):
    return total(rewards - TOY_BETA * log_ratios)


def weights_a(rewards, log_ratios):
    return total(rewards) - TOY_BETA * every.mask


def weights_b(rewards, log_ratios):
    return total(rewards) - TOY_BETA * log_ratios


def weights_d(rewards, log_ratios):
    return total(rewards - TOY_BETA * (torch.expm1(-log_ratios) + log_ratios))


# the trainer's weights, and what it takes for the reference's log-probabilities
LAB = {"right": (weights_right, lambda logprobs: known), "run A": (weights_a, lambda logprobs: known),
       "run B": (weights_b, lambda logprobs: known), "run C": (weights_right, lambda logprobs: logprobs),
       "run D": (weights_d, lambda logprobs: known)}  # fmt: skip
REPORTS = {"run D": lambda log_ratios: torch.expm1(-log_ratios) + log_ratios}  # the others: the log-ratio

# %%
def trainer(name):
    """A run of the lab as weights for `ascend`."""
    weigh, asked = LAB[name]

    def expected(chance, logprobs):
        log_ratios = torch.where(every.mask, logprobs - asked(logprobs), 0)
        return chance[:, None] * weigh(every.rewards, log_ratios)

    return expected


ends = {name: chances(ascend(trainer(name)))[0].detach() for name in progress(list(LAB), "lab")}
print(f"{'after 200 steps':16s}{account(best)}   the best there is")
for name, end in ends.items():
    print(f"{name:16s}{account(end)}")

# %% [markdown]
# Now the property test, at the policy six steps from the reference: what each run reports as its KL, and where its
# expected gradient points.

# %%
chance, logprobs = chances(policy)
grad_J = slope(policy, (chance * returns).sum())
print(f"the KL is {float(KL.detach()):.2f}   reported   cosine with ∇(J − β KL)   cosine with ∇J")
for name, (_, asked) in LAB.items():
    log_ratios = torch.where(every.mask, logprobs - asked(logprobs), 0).detach()
    reported = REPORTS.get(name, lambda x: x)(log_ratios).sum(1) @ chance.detach()
    found = slope(policy, (trainer(name)(chance.detach(), logprobs.detach()) * logprobs).sum())
    print(f"{name:14s} {reported:10.2f} {cosine_similarity(found, grad_J - TOY_BETA * grad_KL, 0):25.2f} "
          f"{cosine_similarity(found, grad_J, 0):16.2f}")  # fmt: skip

# %% [markdown]
# The suspects. Four of them are guilty, one per run.
#
# | name | the bug |
# |---|---|
# | `sign` | the penalty is added to the rewards instead of subtracted |
# | `last token` | only the last token's log-ratio is in the penalty |
# | `own token` | each token is charged its own log-ratio alone, not those of the tokens that follow |
# | `in the loss` | the mean log-ratio is added to the loss and differentiated there |
# | `moving reference` | the reference is the policy itself: it was not copied, or is renewed before each step |
# | `k3` | the rewards are lowered by $k_3$ instead of $k_1$ |
# | `twice` | the penalty is subtracted twice |
# | `group std` | advantages, penalty included, are divided by the standard deviation of their group |

# %% ex="13.6" points=4 difficulty="hard" minutes=15
# For each run the name of its bug, from the table above: {"A": "...", "B": "...", "C": "...", "D": "..."}
# BEGIN SOLUTION
bugs = {"A": "in the loss", "B": "own token", "C": "moving reference", "D": "k3"}
# END SOLUTION

# %% ex="13.6" role="check"
bugs = check("13.6", bugs)

# %% [markdown] ex="13.6" role="hints"
# <details><summary>Hint 1</summary>Two runs follow ∇J and know no penalty at all. What they report tells them
# apart.</details>
# <details><summary>Hint 2</summary>Of the other two, one is held back too little, and the other is driven away from
# the reference. The table of places above has both gradients, one of them under another name.</details>

# %% [markdown]
# **What you saw.** Runs A and C have no penalty at all and end at $J = 1$, KL 4.8. C can be told from its log: a KL
# that stays at exactly 0 means that the reference moves along. A's log is right, and so is D's, to the last digit:
# the *number* is estimated well, and the gradient is another. B, whose penalty has the gradient of "k2 in the loss",
# looks like a run with a smaller $\beta$, and nothing in its log says that 0.3123 was there to be had instead of
# 0.3036. Only the exact gradient tells.
#
# ## Recap
# - RLOO, GRPO, Dr. GRPO: rewards compared within the group of a prompt. GRPO divides by its spread, and by lengths; the
#   others do not. PPO: several steps per batch, with a clip. All of them are weights in the loss of lesson 08.
# - The KL to a reference belongs into the rewards as $k_1$. Other estimates of the same number, or another place, have
#   another gradient, or none.
# - A reward model turns choices into rewards, and is right only near what it was trained on. Optimise against it, and
#   the policy goes where it is wrong. A KL penalty, few steps, or best of $n$ keep it near; reading samples tells.
# - The best policy under a KL penalty is the reference times $\exp(r / \beta)$. DPO uses that to learn from pairs
#   directly; it is a weight in the same loss too.
#
# ## Try next
# - `--beta 0.1` and `--beta 2`: which penalty is too small to hold it, and which too large to learn?
# - Show those who compare whole completions (`short = task`): do the reward models get better? Are they hacked later?
# - `--error-rate 0.4`: which of the three roads from pairs suffers most?
# - Train a second reward model on completions of a hacked policy, labelled by the judge, and go on. This is how it is
#   done in practice: rounds.
#
# ## References
# - Bradley and Terry (1952), *Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons*.
# - Schulman et al. (2017), *Proximal Policy Optimization Algorithms* (PPO).
# - Schulman (2020), *Approximating KL Divergence* (the three estimates).
# - Stiennon et al. (2020), *Learning to Summarize from Human Feedback*; Ouyang et al. (2022), *Training Language
#   Models to Follow Instructions with Human Feedback*.
# - Gao, Schulman and Hilton (2023), *Scaling Laws for Reward Model Overoptimization*.
# - Rafailov et al. (2023), *Direct Preference Optimization: Your Language Model Is Secretly a Reward Model* (DPO).
# - Ahmadian et al. (2024), *Back to Basics* (RLOO); Shao et al. (2024), *DeepSeekMath* (GRPO); Liu et al. (2025),
#   *Understanding R1-Zero-Like Training* (Dr. GRPO).
# - Beirami et al. (2024), *Theoretical Guarantees on the Best-of-n Alignment Policy*.
