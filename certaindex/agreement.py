"""Agreement certaindex: how far a query's answers agree, from 0 (all differ) to 1 (all the same).

Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (Dynasor), 2024: answers fall into m
groups with counts c_i, n = sum c_i, H = -sum (c_i/n) ln(c_i/n), and the measure is
(ln n - H) / ln n. Since ln n - H = (1/n) sum c_i ln c_i, that is what is computed here.

A sample without an answer is evidence of no group: it is left out of n. (A rule that distrusts such
samples looks at `Votes.n` beside `Votes.answered`.) Below two answers the measure is undefined.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def certaindex(counts: Iterable[int]) -> float | None:
    """Agreement of one query from its answers a group; None below two answers."""
    answers = 0
    information = 0.0  # sum of c ln c = n (ln n - H)
    for count in counts:
        if count < 0:
            raise ValueError(f"counts must be 0 or more, not {count}")
        answers += count
        if count > 1:
            information += count * log(count)
    if answers < 2:
        return None
    # Rounding may end a hair above 1 where all agree.
    return min(1.0, information / (answers * log(answers)))


def certaindex_batched(groups: Tensor, mask: Tensor) -> Tensor:
    """Agreement of many queries in one call, on the device of `groups`.

    Args:
        groups: (queries, samples) integer group ids, 0 or more where `mask` holds.
        mask: (queries, samples) bool, true where the sample gave an answer.

    Returns:
        (queries,) float64 (float32 where the device has no float64); NaN below two answers.
    """
    import torch  # here and not above, so that a stop rule does not pay for importing torch

    if groups.ndim != 2 or groups.shape != mask.shape:
        raise ValueError(
            "groups and mask must have one shape (queries, samples), "
            f"not {tuple(groups.shape)} and {tuple(mask.shape)}"
        )
    real = torch.float32 if groups.device.type == "mps" else torch.float64
    ordered, _ = torch.where(mask, groups, -1).sort(dim=1)
    # In a sorted row the size of a sample's own group is the distance between its two borders.
    last = torch.searchsorted(ordered, ordered, right=True)
    first = torch.searchsorted(ordered, ordered)
    counted = ordered >= 0
    # Each member of a group of c adds ln c, so the sum over samples is sum c ln c.
    information = torch.where(counted, (last - first).to(real).log(), 0.0).sum(dim=1)
    answers = counted.sum(dim=1).to(real)
    value = (information / (answers * answers.log())).clamp(0.0, 1.0)
    return torch.where(answers >= 2, value, torch.nan)
