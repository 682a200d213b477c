"""Losses that teach a ranker the order of lengths, behind one switch (`make_loss`).

All of them take whole lists at once, padded to one length. What they use of a length that a limit
cut is only what is known: it is longer than any whole one of at most as many tokens. The order of
two cut ones, or of a cut one and a longer whole one, is unknown and counts for nothing; neither
does that of equal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from dynasor.errors import ConfigError

BUCKETS = 10
MARGIN = 1.0
FAR_BELOW = -1e9
"""Stands for the logarithm of zero where a true minus infinity would make gradients NaN."""


class Lengths(NamedTuple):
    """What lists of answers teach.

    Attributes:
        log_tokens: (lists, items) float, logarithm of output tokens; of the bound where cut.
        cut: (lists, items) bool, answers that a limit ended.
        mask: (lists, items) bool, False where a list is only padded.
    """

    log_tokens: Tensor
    cut: Tensor
    mask: Tensor


class Loss(Protocol):
    """How a model's outputs are judged."""

    @property
    def width(self) -> int:
        """Numbers that the model gives for a prompt."""
        ...

    def __call__(self, outputs: Tensor, lengths: Lengths) -> Tensor:
        """The mean loss, a scalar, of (lists, items, width) outputs; 0 where nothing is known."""
        ...


def read_scores(outputs: Tensor) -> Tensor:
    """(...) scores, higher for longer, from (..., width) outputs of a model.

    A single number is the score itself; of several, one a bucket, it is the bucket to be expected.
    """
    if outputs.shape[-1] == 1:
        return outputs.squeeze(-1)
    places = torch.arange(outputs.shape[-1], device=outputs.device, dtype=outputs.dtype)
    return (outputs.softmax(-1) * places).sum(-1)


def list_mle(scores: Tensor, lengths: Lengths) -> Tensor:
    """Negative log-likelihood a stage of the order from shortest to longest (Plackett-Luce).

    At each stage the shortest of what is left is drawn, with odds of exp(-score): ListMLE (Xia et
    al., 2008). Where lengths are equal, each of them is drawn from itself and what is longer; cut
    answers stay in the draw until their bound and are never drawn, as in Cox's partial likelihood.

    Args:
        scores: (lists, items) scores, higher for longer.
        lengths: what is known of the items.
    """
    order = _shortest_first(lengths)
    odds = (-scores).masked_fill(~lengths.mask, FAR_BELOW).gather(-1, order)
    cut = lengths.cut.gather(-1, order)
    rest = functional.pad(odds.flip(-1).logcumsumexp(-1).flip(-1), (0, 1), value=FAR_BELOW)
    longer = rest.gather(-1, _after_equals(lengths.log_tokens.gather(-1, order), cut))
    drawn = lengths.mask.gather(-1, order) & ~cut
    return _mean(torch.logaddexp(odds, longer) - odds, drawn)


def _shortest_first(lengths: Lengths) -> Tensor:
    """(lists, items) positions by rising tokens, whole before cut ones, padding last."""
    second = torch.argsort(lengths.cut.to(torch.int8), dim=-1, stable=True)
    tokens = lengths.log_tokens.masked_fill(~lengths.mask, torch.inf).gather(-1, second)
    return second.gather(-1, torch.argsort(tokens, dim=-1, stable=True))


def _after_equals(ordered: Tensor, cut: Tensor) -> Tensor:
    """(lists, items) for each position of a sorted list where what is longer begins; its end if none."""
    size = ordered.shape[-1]
    new = (ordered[..., 1:] != ordered[..., :-1]) | (cut[..., 1:] != cut[..., :-1])
    starts = torch.arange(1, size, device=ordered.device).expand(new.shape)
    starts = functional.pad(starts.masked_fill(~new, size), (0, 1), value=size)
    return starts.flip(-1).cummin(-1).values.flip(-1)


def ranknet(scores: Tensor, lengths: Lengths) -> Tensor:
    """Mean logistic loss of the pairs of known order (RankNet, Burges et al., 2005).

    Args:
        scores: (lists, items) scores, higher for longer.
        lengths: what is known of the items.
    """
    return _mean(functional.softplus(-_lead(scores)), _known_pairs(lengths))


def margin(scores: Tensor, lengths: Lengths) -> Tensor:
    """Mean over the pairs of known order of what the longer one lacks of a lead of `MARGIN`.

    Args:
        scores: (lists, items) scores, higher for longer.
        lengths: what is known of the items.
    """
    return _mean(functional.relu(MARGIN - _lead(scores)), _known_pairs(lengths))


def _lead(scores: Tensor) -> Tensor:
    """(lists, i, j) score of j above that of i."""
    return scores.unsqueeze(-2) - scores.unsqueeze(-1)


def _known_pairs(lengths: Lengths) -> Tensor:
    """(lists, i, j) bool: j is known to be longer than i."""
    tokens, cut, mask = lengths
    shorter, longer = tokens.unsqueeze(-1), tokens.unsqueeze(-2)
    known = (shorter < longer) | ((shorter == longer) & cut.unsqueeze(-2))
    return known & (mask & ~cut).unsqueeze(-1) & mask.unsqueeze(-2)


@dataclass(frozen=True, slots=True)
class OrderLoss:
    """A loss of one score a prompt, where only the order of lengths counts."""

    function: Callable[[Tensor, Lengths], Tensor]
    width: int = 1

    def __call__(self, outputs: Tensor, lengths: Lengths) -> Tensor:
        """As the contract says."""
        return self.function(outputs.squeeze(-1), lengths)


@dataclass(frozen=True, slots=True)
class Regression:
    """Huber loss of log tokens, in standard deviations; nothing for a guess above a cut one's bound.

    Attributes:
        centre: mean of log tokens in the training data.
        scale: their standard deviation.
    """

    centre: float
    scale: float
    width: int = 1

    def __call__(self, outputs: Tensor, lengths: Lengths) -> Tensor:
        """As the contract says."""
        wanted = (lengths.log_tokens - self.centre) / self.scale
        guess = outputs.squeeze(-1)
        guess = torch.where(lengths.cut, torch.minimum(guess, wanted), guess)
        return _mean(functional.huber_loss(guess, wanted, reduction="none"), lengths.mask)


@dataclass(frozen=True, slots=True)
class Classification:
    """Cross-entropy of the bucket of the tokens; for a cut one, of its bucket or any later one.

    Attributes:
        edges: log tokens between the buckets, not falling.
    """

    edges: tuple[float, ...]

    @property
    def width(self) -> int:
        """The number of buckets."""
        return len(self.edges) + 1

    def __call__(self, outputs: Tensor, lengths: Lengths) -> Tensor:
        """As the contract says."""
        edges = torch.tensor(self.edges, dtype=lengths.log_tokens.dtype, device=outputs.device)
        bucket = torch.bucketize(lengths.log_tokens, edges, right=True).unsqueeze(-1)
        places = torch.arange(self.width, device=outputs.device)
        possible = torch.where(lengths.cut.unsqueeze(-1), places >= bucket, places == bucket)
        logs = outputs.log_softmax(-1).masked_fill(~possible, FAR_BELOW)
        return _mean(-logs.logsumexp(-1), lengths.mask)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count; 0, with a gradient of 0, where none does."""
    return values.masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)


ORDER_LOSSES = {"listmle": list_mle, "ranknet": ranknet, "margin": margin}
LOSSES = (*ORDER_LOSSES, "regression", "classification")


def outputs_of(name: str) -> int:
    """Numbers that a model gives a prompt for this loss: one, or one a bucket."""
    return BUCKETS if name == "classification" else 1


def make_loss(name: str, log_tokens: Tensor) -> Loss:
    """The loss of this name.

    Args:
        name: one of `LOSSES`.
        log_tokens: (examples,) those of the training data, which regression and classification
            take their scale and their buckets (equally many examples each) from.

    Raises:
        ConfigError: if there is no such loss.
    """
    if name in ORDER_LOSSES:
        return OrderLoss(ORDER_LOSSES[name])
    values = log_tokens.double()
    if name == "regression":
        return Regression(float(values.mean()), max(1e-6, float(values.std(correction=0))))
    if name == "classification":
        shares = torch.arange(1, BUCKETS, dtype=torch.float64) / BUCKETS
        edges: list[float] = torch.quantile(values, shares).tolist()
        return Classification(tuple(edges))
    raise ConfigError(f"loss {name!r} is unknown; there are {', '.join(LOSSES)}")
