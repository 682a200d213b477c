"""Ranks while an engine runs: in batches, cached, never late, and never in the way when they fail."""

import asyncio
import logging
import threading
from time import sleep

import numpy as np
import pytest

from dynasor.ranking.length_calibration import LengthCalibration
from dynasor.ranking.model_folder import SHIPPED
from dynasor.ranking.prompt_vector import prompt_vector
from dynasor.ranking.ranked import ranked_by
from dynasor.ranking.scorer import LengthScorer, load_ranking

CALIBRATION = LengthCalibration(
    scores=(0.0, 10.0, 20.0),
    mean_log=(4.0, 5.0, 6.0),
    sd_log=(0.5, 0.5, 0.5),
    quantile_log=((3.5, 4.5), (4.5, 5.5), (5.5, 6.5)),
    levels=(0.1, 0.9),
    examples=100,
)


def make(ranker, **settings):
    """A scorer that is in no hurry, for the machine may be."""
    return LengthScorer(ranker, CALIBRATION, **{"deadline": 10, **settings})


class ByLength:
    """A ranker by the prompt's length, which does as it is told."""

    name = "by length"

    def __init__(self, seconds=0.0, odd=lambda prompt: None):
        self.batches = []
        self.seconds = seconds
        self.odd = odd

    def score(self, prompts):
        self.batches.append(list(prompts))
        sleep(self.seconds)
        values = [(self.odd(prompt), len(prompt)) for prompt in prompts]
        for odd, _ in values:
            if isinstance(odd, Exception):
                raise odd
        return np.array([length if odd is None else odd for odd, length in values], dtype=float)


async def ranks(scorer, prompts):
    try:
        return await asyncio.gather(*(scorer.rank(prompt) for prompt in prompts))
    finally:
        scorer.close()


async def test_a_rank_says_what_its_calibration_says():
    (found,) = await ranks(make(ByLength()), ["x" * 15])
    assert found.rank == 5  # around the middle of the calibration's scores
    assert found.lengths.centre == pytest.approx(5.5)
    assert found.lengths.centre_sd == pytest.approx((0.5**2 - 0.25**2) ** 0.5)


async def test_prompts_that_come_together_are_one_batch_and_each_only_once():
    ranker = ByLength()
    scorer = make(ranker, window=0.05)
    found = await ranks(scorer, ["a", "bb", "a", "ccc"])
    assert ranker.batches == [["a", "bb", "ccc"]]
    assert [each.rank for each in found] == [-9, -8, -9, -7]


async def test_a_batch_has_a_limit():
    ranker = ByLength()
    await ranks(make(ranker, window=0.05, batch=2), "abcde")
    assert [len(batch) for batch in ranker.batches] == [2, 2, 1]


async def test_what_is_known_is_not_scored_again_and_the_oldest_is_forgotten():
    ranker = ByLength()
    scorer = make(ranker, window=0, cached=2)
    for prompt in ("a", "b", "a", "c", "b", "a"):
        await scorer.rank(prompt)
    scorer.close()
    assert [prompt for batch in ranker.batches for prompt in batch] == ["a", "b", "c", "b", "a"]
    assert scorer.counters.cached == 1
    assert scorer.counters.scored == 5


async def test_a_slow_ranker_leaves_the_query_unranked_but_for_the_next_time():
    scorer = make(ByLength(seconds=0.2), deadline=0.01)
    assert await scorer.rank("a") is None
    assert scorer.counters.late == 1
    known = None
    while known is None:
        await asyncio.sleep(0.02)
        known = await scorer.rank("a")
    assert known.rank == -9
    assert scorer._ranker.batches == [["a"]]
    scorer.close()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), RuntimeError("no such word")])
async def test_an_odd_prompt_goes_unranked_and_takes_nobody_with_it(odd, caplog):
    ranker = ByLength(odd=lambda prompt: odd if prompt.startswith("odd") else None)
    scorer = make(ranker, window=0.05)
    with caplog.at_level(logging.WARNING):
        found = await ranks(scorer, ["a", "odd", "odder", "bb"])
    assert [each if each is None else each.rank for each in found] == [-9, None, None, -8]
    assert scorer.counters.failed == 2
    assert len(caplog.records) == 1


async def test_a_ranker_that_gives_too_few_scores_ranks_nobody():
    class Few(ByLength):
        def score(self, prompts):
            return np.zeros(len(prompts) + 1)

    assert await ranks(make(Few()), ["a", "b"]) == [None, None]


async def test_an_empty_and_a_huge_prompt_have_a_rank():
    found = await ranks(make(ByLength(), deadline=5), ["", "x" * 2**20, "\ud800"])
    assert [each.rank for each in found] == [-10, 2**20 - 10, -9]
    assert found[1].lengths.centre == 7, "no further than one bin beyond the last"


async def test_closing_leaves_no_thread_behind_and_no_query_stuck():
    def threads():
        return [each for each in threading.enumerate() if each.name == "length-scorer"]

    scorer = make(ByLength())
    assert not threads()  # none before the first prompt
    assert await scorer.rank("a") is not None
    assert len(threads()) == 1
    scorer.close()
    scorer.close()
    assert not threads()
    assert await scorer.rank("b") is None
    assert (await scorer.rank("a")).rank == -9  # still known


async def test_who_gives_up_waiting_does_not_disturb_the_others():
    scorer = make(ByLength(seconds=0.05), deadline=5)
    first, second = (asyncio.create_task(scorer.rank("a")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).rank == -9
    scorer.close()


def test_scores_are_told_without_a_thread_too():
    found = ranked_by(ByLength(), CALIBRATION, ["a", "x" * 100])
    assert [each.rank for each in found] == [-9, 90]
    assert np.array_equal(found[1].prompt, prompt_vector("x" * 100))


@pytest.mark.parametrize(
    "odd", [{"deadline": 0}, {"window": -1}, {"batch": 0}, {"cached": -1}, {"window": 10}]
)
def test_settings_are_checked(odd):
    with pytest.raises(ValueError, match="window must be 0 s or more"):
        make(ByLength(), **odd)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rankers_say_what_their_scores_mean_in_tokens(name):
    ranker, calibration = load_ranking(name)
    prompts = ["Say yes or no: is 7 prime?", "Write a detailed essay of 2000 words on the sea."]
    means, deviations = calibration.expected(ranker.score(prompts))
    assert means[0] < means[1]
    assert (deviations > 0).all()
