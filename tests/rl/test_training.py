"""The loop: probe worlds that localise a failing learner, exact resumption, errors that name the update."""

import math

import pytest
import torch

from ptlearn.checkpoints import read_state, save_checkpoint
from ptlearn.grid.collection import collect
from ptlearn.grid.mdp import MDP, exact_gradient, objective, probabilities, state_values
from ptlearn.optimization import update
from ptlearn.policy_gradient import advantage, clipped_weights, reward_to_go, step_ratio, total_return
from ptlearn.rl.policies import FeatureCritic, FeaturePolicy, TabularCritic, TabularPolicy
from ptlearn.rl.training import History, fit_critic, train_policy
from ptlearn.rollout import Rollout

END = [0.0, 0.0, 1.0]
BANDIT = MDP([[[0.0, 1.0]] * 2, [[0.0, 1.0]] * 2], [[0.2, 1.0], [0.0, 0.0]], [1.0, 0.0])  # one step, one decision
# action 1 in the first state pays 1 at once; action 0 pays 3 one step later
DELAY = MDP([[[0.0, 1.0, 0.0], END], [END, END], [END, END]], [[0.0, 1.0], [3.0, 3.0], [0.0, 0.0]], [1.0, 0.0, 0.0])


def sampled(mdp: MDP, episodes: int = 32, horizon: int = 5):
    return lambda policy, generator: collect(mdp, policy, episodes, horizon=horizon, generator=generator)


def reinforce(rollout, values, bootstrap, logprobs):
    return total_return(rollout.rewards, rollout.mask)


def actor_critic(gamma: float = 1.0, lam: float = 0.9):
    return lambda rollout, values, bootstrap, _: advantage(
        rollout.rewards, values, rollout.mask, bootstrap, gamma=gamma, lam=lam
    )


def test_one_step_decision():
    policy = TabularPolicy(2, 2)
    train_policy(policy, sampled(BANDIT), reinforce, updates=60, lr=0.2)
    assert probabilities(BANDIT, policy)[0, 1] > 0.95


@pytest.mark.parametrize("weigh", [reinforce, actor_critic()], ids=["REINFORCE", "actor-critic"])
def test_delayed_reward(weigh):
    policy, critic = TabularPolicy(3, 2), TabularCritic(3)
    train_policy(policy, sampled(DELAY), weigh, updates=100, lr=0.2, critic=critic)
    assert probabilities(DELAY, policy)[0, 0] > 0.95


def test_discount_makes_the_early_reward_better():
    impatient = MDP(DELAY.P, DELAY.R, DELAY.start, gamma=0.2)  # 1 now, or 0.2 * 3 later
    policy, critic = TabularPolicy(3, 2), TabularCritic(3)
    train_policy(policy, sampled(impatient), actor_critic(gamma=0.2), updates=100, lr=0.2, critic=critic, gamma=0.2)
    assert probabilities(impatient, policy)[0, 1] > 0.95


def test_a_network_on_features_learns_too():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    policy, critic = FeaturePolicy(features, 2), FeatureCritic(features)
    assert torch.equal(probabilities(DELAY, policy), torch.full((3, 2), 0.5, dtype=torch.float64))
    train_policy(policy, sampled(DELAY), actor_critic(), updates=100, lr=0.03, critic=critic, critic_lr=0.03)
    assert probabilities(DELAY, policy)[0, 0] > 0.95


def test_the_critic_learns_the_values_of_the_policy():
    policy, critic = TabularPolicy(3, 2).double(), TabularCritic(3).double()
    frozen = lambda rollout, *_: torch.zeros_like(rollout.rewards)  # noqa: E731
    train_policy(policy, sampled(DELAY, 256), frozen, updates=300, critic=critic, critic_lr=0.05)
    exact = state_values(DELAY, probabilities(DELAY, policy))
    assert torch.allclose(critic.values.detach()[:2], exact[:2], atol=0.1)
    assert float(exact[0].detach()) == pytest.approx(2.0)


def test_truncation_bootstraps_and_termination_does_not():
    loop = MDP([[[1.0, 0.0]], [[0.0, 1.0]]], [[1.0], [0.0]], [1.0, 0.0], gamma=0.5)  # +1 for ever: V = 2
    policy, critic = TabularPolicy(2, 1).double(), TabularCritic(2, initial=7.0).double()
    frozen = lambda rollout, *_: torch.zeros_like(rollout.rewards)  # noqa: E731
    settings = {"updates": 400, "critic": critic, "critic_lr": 0.05, "gamma": 0.5, "lam": 0.5}
    train_policy(policy, sampled(loop, 4, horizon=2), frozen, **settings)
    assert float(critic.values[0].detach()) == pytest.approx(2.0, abs=0.05)  # 1.5 without the bootstrap
    assert float(critic.values[1].detach()) == 7.0


def test_one_update_moves_along_the_exact_gradient():
    policy = TabularPolicy(3, 2).double()
    policy.logits.data.normal_(generator=torch.Generator().manual_seed(0))
    exact = exact_gradient(DELAY, policy)
    rollout, _ = collect(DELAY, policy, 200_000, horizon=5, generator=torch.Generator().manual_seed(1))
    before = policy.logits.detach().clone()
    norm = update(policy, torch.optim.SGD(policy.parameters(), lr=1.0), rollout, reinforce(rollout, None, None, None))
    moved = (policy.logits.detach() - before).flatten()
    assert torch.allclose(moved, exact, atol=0.01) and float(exact.norm()) > 0.1
    assert norm == pytest.approx(float(moved.norm()))


def test_clipped_epochs_improve_on_one():
    def ppo(rollout, values, bootstrap, logprobs):
        ratio = step_ratio(logprobs, rollout.logprobs, rollout.mask)
        return clipped_weights(ratio, reward_to_go(rollout.rewards, rollout.mask) - 1.5, epsilon=0.2)

    results = {}
    for epochs in (1, 8):
        policy = TabularPolicy(3, 2)
        history = train_policy(policy, sampled(DELAY), ppo, updates=10, lr=0.05, epochs=epochs)
        results[epochs] = float(objective(DELAY, probabilities(DELAY, policy).detach()))
        assert (history.effective_sample_size[0] == 1) == (epochs == 1)
    assert results[8] > results[1] + 0.1


def test_history_counts_and_seeds_repeat():
    runs = [train_policy(TabularPolicy(3, 2), sampled(DELAY), reinforce, updates=5, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    history = runs[0]
    assert history.episodes == [32, 64, 96, 128, 160]
    assert 32 * 5 < history.steps[-1] < 2 * 32 * 5
    assert history.entropy[0] == pytest.approx(math.log(2)) and history.effective_sample_size == [1.0] * 5
    other = train_policy(TabularPolicy(3, 2), sampled(DELAY), reinforce, updates=5, seed=4)
    assert other.returns != history.returns


def test_until_stops_early():
    history = train_policy(
        TabularPolicy(2, 2), sampled(BANDIT), reinforce, updates=50, until=lambda _, h: len(h.returns) == 3
    )
    assert len(history.returns) == 3
    asked = []
    train_policy(TabularPolicy(2, 2), sampled(BANDIT), reinforce, updates=4, until=lambda *_: asked.append(1))
    assert len(asked) == 4  # after every update, the last one too


def test_a_run_that_was_stopped_stays_stopped(tmp_path):
    def run():
        policy = TabularPolicy(2, 2)
        options = {"updates": 9, "until": lambda _, history: len(history.returns) >= 2, "checkpoint": tmp_path / "a"}
        return train_policy(policy, sampled(BANDIT), reinforce, **options), policy.logits.detach()

    first, again = run(), run()
    assert len(first[0].returns) == 2 and again[0] == first[0] and torch.equal(first[1], again[1])


@pytest.mark.parametrize(
    ("weigh", "options", "message"),
    [
        (lambda r, *_: r.rewards.sum(1), {}, r"weights is \(32,\): expected a tensor of shape \(32, 1\)"),
        (lambda *_: None, {}, "weights is NoneType: expected a tensor"),
        (reinforce, {"normalizer": lambda r: r.mask.sum(1)}, r"normalizer has shape \(32,\): expected \(32, 1\)"),
        (reinforce, {"clip_norm": -1.0}, "clip_norm=-1.0: expected a number above 0"),
        (reinforce, {"clip_norm": math.nan}, "clip_norm=nan: expected a number above 0"),
    ],
)
def test_what_a_step_cannot_use_is_one_line_and_no_step(weigh, options, message):
    policy = TabularPolicy(2, 2)
    with pytest.raises(ValueError, match=f"^update 0: {message}"):
        train_policy(policy, sampled(BANDIT), weigh, updates=1, **options)
    assert torch.equal(policy.logits.detach(), torch.zeros(2, 2))


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    def run(path, die_at=None):
        policy, critic, calls = TabularPolicy(3, 2), TabularCritic(3), []

        def gather(policy, generator):
            calls.append(1)
            if len(calls) == die_at:
                raise KeyboardInterrupt
            return collect(DELAY, policy, 8, horizon=5, generator=generator)

        settings = {"updates": 12, "critic": critic, "checkpoint": path, "checkpoint_every": 4}
        history = train_policy(policy, gather, actor_critic(), **settings)
        return policy.logits.detach(), critic.values.detach(), history, len(calls)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", die_at=7)
    assert len(read_state(tmp_path / "killed")["history"]["returns"]) == 4
    resumed = run(tmp_path / "killed")
    assert resumed[3] == 8  # the updates that were missing, and no others
    assert torch.equal(whole[0], resumed[0]) and torch.equal(whole[1], resumed[1]) and whole[2] == resumed[2]


def test_a_checkpoint_of_another_run_is_refused_and_more_updates_go_on(tmp_path):
    path, settings = tmp_path / "run", {"updates": 3, "critic_lr": 0.2, "lam": 0.9, "clip_norm": 5.0}

    def run(states=3, critic=True, **options):
        policy, critic = TabularPolicy(states, 2), TabularCritic(3) if critic else None
        before = policy.logits.detach().clone()
        try:
            return train_policy(policy, sampled(DELAY), actor_critic(), checkpoint=path, critic=critic,
                                **settings | options)  # fmt: skip
        except ValueError:
            assert torch.equal(policy.logits, before)  # refused before anything is put back
            raise

    whole = run()
    others = {
        "lr": (0.1, 0.2), "critic_lr": (0.2, 0.1), "gamma": (1.0, 0.9), "lam": (0.9, 1.0), "epochs": (1, 2),
        "clip_norm": (5.0, torch.inf), "seed": (0, 1),
    }  # fmt: skip
    for name, (was, now) in others.items():
        with pytest.raises(ValueError, match=f"^checkpoint .*run is of another run: {name} was {was}, now {now}$"):
            run(**{name: now})
    with pytest.raises(ValueError, match=r"is of another run: reference was \w+, now \w+; beta was 0.0, now 0.5$"):
        run(beta=0.5, reference=TabularPolicy(3, 2))
    for changed in ({"states": 4}, {"critic": False}):
        with pytest.raises(ValueError, match="run: trained was {'policy': 6, 'critic': 3}, now {'policy'"):
            run(**changed)
    save_checkpoint(path, {"returns": []}, {}, {}, {})
    with pytest.raises(ValueError, match="is of another run: trained was None"):
        run()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="^checkpoint .*run is damaged or none"):
        run()
    path.unlink()
    assert len(run(updates=1).returns) == 1 and run() == whole


def test_errors_name_the_update():
    def infinite(policy, generator):
        rollout, final = sampled(BANDIT)(policy, generator)
        rewards = rollout.rewards + torch.inf
        return Rollout(rollout.observations, rollout.actions, rewards, rollout.logprobs, rollout.mask,
                       rollout.terminated), final  # fmt: skip

    with pytest.raises(ValueError, match="^update 0: the mean return is inf"):
        train_policy(TabularPolicy(2, 2), infinite, reinforce, updates=2)
    policy = TabularPolicy(2, 2)
    with pytest.raises(ValueError, match="^update 0: the gradient's norm is nan"):
        train_policy(policy, sampled(BANDIT), lambda r, *_: r.rewards * torch.nan, updates=2)
    assert torch.equal(policy.logits.detach(), torch.zeros(2, 2))
    stale = sampled(BANDIT)
    first = stale(TabularPolicy(2, 2), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="^update 1: logprobs are off"):
        train_policy(TabularPolicy(2, 2), lambda *_: first, reinforce, updates=3)


def test_fit_critic_is_half_the_mean_squared_error():
    critic = TabularCritic(2)
    mask = torch.tensor([[True, False]])
    rollout = Rollout(torch.tensor([[0, 1]]), torch.zeros(1, 2).long(), torch.zeros(1, 2), torch.zeros(1, 2), mask,
                      torch.tensor([True]))  # fmt: skip
    error = fit_critic(critic, torch.optim.SGD(critic.parameters(), lr=1.0), rollout, torch.tensor([[3.0, 100.0]]))
    assert error == 9.0 and critic.values.tolist() == [3.0, 0.0]


def test_an_empty_history_has_lists_of_its_own():
    one, other = History(), History()
    one.returns.append(1.0)
    assert other.returns == []
