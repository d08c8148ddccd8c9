"""Intervals: against published tables, and against the equations that their ends have to solve."""

import numpy as np
import pytest

from ptlearn.statistics import over_seeds, ratio, resampled, wilson


@pytest.mark.parametrize("n, t", [(2, 12.7062), (3, 4.3027), (5, 2.7764), (10, 2.2622), (30, 2.0452), (1001, 1.9623)])
def test_interval_over_seeds_uses_the_published_quantiles(n, t):
    values = np.random.default_rng(n).normal(size=n)
    estimate = over_seeds(values)
    error = np.sqrt(((values - values.mean()) ** 2).sum() / (n - 1) / n)
    assert estimate.mean == pytest.approx(values.mean(), abs=1e-12) and estimate.n == n
    assert (estimate.high - estimate.mean) / error == pytest.approx(t, abs=2e-4)
    assert (estimate.mean - estimate.low) / error == pytest.approx(t, abs=2e-4)


def test_interval_over_seeds_covers_the_truth_as_often_as_it_says():
    runs = np.random.default_rng(0).normal(size=(2000, 4))
    covered = np.mean([e.low <= 0 <= e.high for e in map(over_seeds, runs)])
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 2000)  # 1.96 standard errors would cover 85 %


def test_one_seed_has_no_interval_and_a_table_is_no_list_of_seeds():
    with pytest.raises(ValueError, match="^values has 1 seed: expected at least 2, for an interval$"):
        over_seeds([0.5])
    with pytest.raises(ValueError, match=r"^values has shape \(2, 2\): expected \(seeds,\)$"):
        over_seeds([[0.0, 1.0], [1.0, 0.0]])


@pytest.mark.parametrize("mean", [0.0, 0.03, 0.5, 0.81, 1.0])
@pytest.mark.parametrize("n", [1, 8, 80, 2000])
def test_the_ends_of_wilsons_interval_are_the_shares_that_the_mean_is_z_errors_away_from(mean, n):
    estimate = wilson(mean, n)
    for end in estimate[1:3]:
        assert (mean - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, abs=1e-12)
    assert 0 <= estimate.low <= mean <= estimate.high <= 1 and estimate.high - estimate.low > 0


@pytest.mark.parametrize(("mean", "n"), [(0.5, 0), (1.5, 3), (-0.5, 3), (float("nan"), 3)])
def test_a_share_of_nothing_or_no_share_is_one_line(mean, n):
    with pytest.raises(ValueError, match=f"^mean={mean} of n={n}: expected a share from 0 to 1 of at least 1$"):
        wilson(mean, n)


def test_resampled_ratios_spread_as_the_mean_does():
    rng = np.random.default_rng(0)
    sums = rng.normal(5, 2, size=400)
    ratios = resampled(sums, np.ones(400), draws=4000)
    assert ratios.mean() == pytest.approx(sums.mean(), abs=0.02)
    assert ratios.std() == pytest.approx(sums.std() / 20, rel=0.1)
    assert (ratios == resampled(sums, np.ones(400), draws=4000)).all()
    with pytest.raises(ValueError, match=r"^sums has shape \(2,\), counts \(3,\): [^\n]*$"):
        resampled([1, 2], [1, 2, 3])


def test_the_interval_of_a_ratio_covers_it_and_is_narrow_where_items_go_together():
    rng, covered = np.random.default_rng(0), []
    for seed in range(200):
        size = rng.gamma(2.0, size=100)
        found = ratio(3 * size + rng.normal(0, 0.5, 100), size, seed=seed)
        covered.append(found.low <= 3 <= found.high)
        assert found.low <= found.mean <= found.high < found.low + 0.3 and found.n == 100
    assert 0.9 < np.mean(covered) < 0.99
