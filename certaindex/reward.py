"""Reward certaindex: how far scored answers agree, times how good the reward model finds them.

Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (Dynasor), 2024, measure tree searches
by the mean or the largest reward of their finished branches, and by the agreement of their answers.
A search whose branches agree on a bad answer is not certain, and neither is one good branch among
rivals: the product is large only where both are.
"""

from __future__ import annotations

from typing import Literal

from certaindex.agreement import certaindex
from certaindex.votes import Votes

Statistic = Literal["mean", "max"]


def leader_reward(votes: Votes, statistic: Statistic = "mean") -> float | None:
    """Mean or largest reward of the samples that gave the leading answer.

    Returns:
        0 to 1; None where there is no leader or none of its samples was scored.
    """
    scored = [
        reward
        for group, reward in zip(votes.history, votes.rewards, strict=True)
        if group is not None and group == votes.leader and reward is not None
    ]
    if not scored:
        return None
    return max(scored) if statistic == "max" else sum(scored) / len(scored)


def reward_certaindex(votes: Votes, statistic: Statistic = "mean") -> float | None:
    """Agreement certaindex of the answers times the leader's reward; None below two answers.

    Unscored answers have agreement alone.
    """
    agreement = certaindex(votes.counts)
    if agreement is None:
        return None
    reward = leader_reward(votes, statistic)
    return agreement if reward is None else agreement * reward
