"""How the hidden states of a prompt become one."""

from __future__ import annotations

from torch import Tensor

from dynasor.errors import ConfigError

POOLINGS = ("mean", "last")


def check_pooling(pooling: str) -> None:
    """See that there is such a pooling.

    Raises:
        ConfigError: if there is none.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling {pooling!r} is unknown; give {' or '.join(POOLINGS)}")


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(prompts, features): the mean of (prompts, tokens, features) states, or the last one.

    Args:
        hidden: states.
        mask: (prompts, tokens) int64, 1 where there is a token; each row begins with one.
        pooling: one of `POOLINGS`.
    """
    if pooling == "last":
        last = (mask.sum(-1) - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, last).squeeze(1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
