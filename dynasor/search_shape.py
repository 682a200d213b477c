"""The shape of a tree search, as it is configured: how deep, how wide, and how many trees."""

from __future__ import annotations

from math import ceil

from algorithms.tree import Steps
from dynasor.config import Config


def steps_of(config: Config) -> Steps:
    """How answers fall into steps."""
    search = config.algorithm.search
    delimiter = search.delimiter or ("\n" if config.is_embedded else "\n\n")
    return Steps(delimiter=delimiter, tokens=search.step_tokens, depth=search.depth)


def width_of(config: Config) -> int:
    """Finished answers of one tree: one node's children for DVTS, else half of the budget if not set."""
    algorithm = config.algorithm
    search, samples = algorithm.search, algorithm.samples
    if algorithm.name == "dvts":
        return min(search.children, samples)
    if search.width is not None:
        return search.width
    half = ceil(samples / 2)
    if algorithm.name == "rebase":
        return half
    return min(ceil(half / search.children) * search.children, samples)


def one_tree(config: Config) -> Config:
    """The configuration with the whole budget for one tree."""
    search = config.algorithm.search.model_copy(update={"width": config.algorithm.samples})
    algorithm = config.algorithm.model_copy(update={"search": search})
    return config.model_copy(update={"algorithm": algorithm})


def side_by_side(config: Config) -> Config:
    """The configuration with all trees at once, where nothing will be saved by waiting."""
    allocator = config.allocator.model_copy(update={"wave": config.algorithm.samples})
    return config.model_copy(update={"allocator": allocator})
