"""When each published rule stops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from certaindex.stopping import StopRule, Verdict, parse_rule
from certaindex.votes import Votes


def cast(groups: list[int | None], budget: int = 64) -> Votes:
    votes = Votes(max_samples=budget)
    seen: dict[int, int] = {}
    for group in groups:
        votes.add(None if group is None else seen.setdefault(group, len(seen)), tokens=10)
    return votes


def first_stop(rule: StopRule, groups: list[int | None]) -> tuple[int, str | None]:
    for n in range(1, len(groups) + 1):
        if stop := rule.decide(cast(groups[:n])).stop:
            return n, stop
    return len(groups), None


@pytest.mark.parametrize(
    ("text", "answers", "stops_at", "reason"),
    [
        ("fixed:3", [1, 2, 3, 4], 3, "certain"),
        ("certaindex:0.9,min=3", [1, 1, 1, 1], 3, "certain"),
        ("certaindex:0.9,min=3", [1, None, 1, 1], 4, "certain"),
        ("certaindex:0.4,min=2,every=2", [1, 2, 1, 1, 1], 4, "certain"),
        ("certaindex:0.9,min=2", [1, 2, 3, 4], 4, None),
        ("adaptive-consistency:0.95", [1, 1, 1, 1, 1], 4, "certain"),
        ("adaptive-consistency:0.95", [1, 2, 1, 1, 1, 1, 1], 7, "certain"),
        ("adaptive-consistency:0.95", [None] * 6, 6, None),
        ("stable:3", [1, 1, 2, 1, 1, 1], 6, "certain"),
        ("stable:3", [2, 1, 1, 1], 4, "certain"),
        ("stable:2", [1, None, 1, None, 1], 5, None),
        ("stable:2", [None, None, None], 3, None),
        ("consensus:0.8,min=4", [1, 1, 1, 2, 1], 5, "certain"),
        ("consensus:0.95,min=2", [None, None, 1, 1], 4, "certain"),
        ("never", [1] * 9, 9, None),
        ("reward:0.9", [1, None, 1], 3, "certain"),
        ("reward:0.9", [1, 2, 1, 2], 4, None),
        ("esc:3", [1, 1, 2, 1, 1, 1], 6, "certain"),
        ("esc:2", [1, None, None, None, 1, 1], 6, "certain"),
        ("sprt:0.05,share=0.75", [1] * 10, 8, "certain"),
        ("sprt:0.05,share=0.75", [1, 2] * 12, 22, "hopeless"),
        ("bayes-factor:10", [1, 1, 1], 2, "certain"),
        ("eprocess:0.2", [1] * 10, 6, "certain"),
        ("eprocess:0.2", [1, 2] * 10, 20, None),
        ("leader-change:0.07", [1] * 10, 3, "certain"),
        ("leader-change:0.07", [None] * 5, 5, None),
        ("fixed:30+hopeless:0.3,min=5", [1, 2, 3, 4, 5, 6], 5, "hopeless"),
        ("fixed:30+hopeless:0.3,min=5", [1, 1, 3, 4, 5, 6, 7], 6 + 1, "hopeless"),
        ("fixed:4+hopeless:0.3,min=5", [1, 2, 3, 4, 5, 6], 4, "certain"),
    ],
)
def test_stops_where_it_should(
    text: str, answers: list[int | None], stops_at: int, reason: str | None
) -> None:
    assert first_stop(parse_rule(text), answers) == (stops_at, reason)


RULES = [
    "default", "fixed:8", "certaindex", "adaptive-consistency", "esc", "sprt", "msprt",
    "bayes-factor", "eprocess", "leader-change", "adaptive-consistency+hopeless",
]  # fmt: skip
ballots = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=64)


@pytest.mark.parametrize("text", RULES)
@settings(deadline=None)
@given(answers=ballots)
def test_every_rule_copes_with_every_ballot(text: str, answers: list[int | None]) -> None:
    rule = parse_rule(text)
    verdict = rule.decide(cast(answers))
    assert isinstance(verdict, Verdict)
    assert verdict.value == verdict.value  # no NaN
    assert verdict == rule.decide(cast(answers)), "a verdict depends on the votes alone"


@pytest.mark.parametrize("text", RULES)
def test_unanimity_stops_within_the_budget(text: str) -> None:
    assert first_stop(parse_rule(text), [1] * 64)[1] == "certain"


def simulate(rule: StopRule, shares: list[float], runs: int, budget: int) -> list[tuple[str, bool]]:
    """For each run: why it stopped, and whether its leader was not the mode (answer 0)."""
    random = np.random.default_rng(1)
    outcomes = []
    for _ in range(runs):
        drawn = random.choice(len(shares), size=budget, p=shares)
        votes, seen = Votes(max_samples=budget), dict[int, int]()
        for answer in drawn.tolist():
            votes.add(seen.setdefault(answer, len(seen)), 1)
            if stop := rule.decide(votes).stop:
                outcomes.append((stop, list(seen)[votes.leader or 0] != 0))
                break
        else:
            outcomes.append(("complete", False))
    return outcomes


@pytest.mark.parametrize("shares", [[0.34, 0.33, 0.33], [0.51, 0.49], [0.2] + [0.1] * 8])
def test_eprocess_is_wrong_at_most_alpha_of_the_time(shares: list[float]) -> None:
    alpha, runs = 0.2, 400
    outcomes = simulate(parse_rule(f"eprocess:{alpha}"), shares, runs, budget=150)
    wrong = sum(stop == "certain" and bad for stop, bad in outcomes)
    # Fails by chance once in a million where the true rate is alpha.
    assert wrong <= stats.binom.ppf(1 - 1e-6, runs, alpha)


def test_sprt_keeps_its_error_rates() -> None:
    runs, rule = 400, parse_rule("sprt:alpha=0.1,beta=0.1,share=0.7")
    different = simulate(rule, [0.7, 0.3], runs, budget=400)
    hopeless = sum(stop == "hopeless" for stop, _ in different)
    assert hopeless <= stats.binom.ppf(1 - 1e-6, runs, 0.1)
    equal = simulate(rule, [0.5, 0.5], runs, budget=400)
    # Twice alpha, since the leader is chosen after looking: either answer may be called the winner.
    assert sum(stop == "certain" for stop, _ in equal) <= stats.binom.ppf(1 - 1e-6, runs, 0.2)


def test_rewards_of_the_leader_hold_a_search_back():
    votes = Votes(max_samples=8)
    for group, reward in ((0, 0.9), (0, 0.7), (1, 0.1)):
        votes.add(group, 1, reward, reward)
    agreement = 2 * np.log(2) / (3 * np.log(3))
    assert parse_rule("reward:0.3").decide(votes).value == pytest.approx(agreement * 0.8)
    assert parse_rule("reward:0.3").decide(votes).stop == "certain"
    assert parse_rule("reward:0.4").decide(votes).stop is None


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan")])
def test_a_reward_that_is_none_is_refused(reward):
    with pytest.raises(ValueError, match="reward must be between 0 and 1"):
        Votes(max_samples=2).add(0, 1, reward=reward)
