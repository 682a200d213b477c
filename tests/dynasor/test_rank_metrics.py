import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from dynasor.errors import DataError
from dynasor.ranking.evaluate import evaluate, score_all
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.length_quantiles import length_quantiles
from dynasor.ranking.metrics import (
    checked_scores,
    checked_tokens,
    kendall_tau,
    ndcg,
    shortest_overlap,
    spearman,
)
from dynasor.ranking.prompt_length import PromptLength
from dynasor.ranking.resampling import interval, resample

pairs = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 6), st.booleans()), min_size=2, max_size=25
)


def columns(rows):
    scores, tokens, cut = (np.array(column) for column in zip(*rows, strict=True))
    return scores.astype(float), tokens.astype(float), cut.astype(bool)


def tau_by_hand(rows):
    """Over pairs of which one answer is surely longer, or both surely equal."""
    agreement = by_length = by_score = 0
    for (s, t, c), (other_s, other_t, other_c) in itertools.permutations(rows, 2):
        if c and other_c:
            continue
        if c and not other_c:
            if t < other_t:
                continue
            order = 1
        elif other_c:
            if other_t < t:
                continue
            order = -1
        else:
            order = (t > other_t) - (t < other_t)
        rank = (s > other_s) - (s < other_s)
        agreement += order * rank
        by_length += order != 0
        by_score += rank != 0
    return agreement / math.sqrt(by_length * by_score) if by_length * by_score else 0.0


class TestTau:
    @given(pairs)
    def test_counts_sure_pairs_only(self, rows):
        assert kendall_tau(*columns(rows)) == pytest.approx(tau_by_hand(rows), abs=1e-9)

    def test_many_cut_lengths_are_seen_block_by_block(self):
        draw = random.Random(0)
        rows = [(draw.random(), draw.randint(1, 50), draw.random() < 0.3) for _ in range(700)]
        assert kendall_tau(*columns(rows)) == pytest.approx(tau_by_hand(rows), abs=1e-9)

    def test_without_cuts_it_is_tau_b(self):
        draw = np.random.default_rng(0)
        scores, tokens = draw.integers(9, size=200), draw.integers(9, size=200)
        assert kendall_tau(scores, tokens) == kendalltau(scores, tokens).statistic
        none_cut = np.zeros(200, bool)
        assert kendall_tau(scores, tokens, none_cut) == kendall_tau(scores, tokens)

    def test_cutting_long_answers_does_not_change_a_perfect_order(self):
        tokens = np.arange(1.0, 101)
        cut = tokens >= 60
        assert kendall_tau(tokens, np.minimum(tokens, 60), cut) == pytest.approx(1)

    def test_equal_scores_say_nothing(self):
        same, tokens = np.ones(5), np.arange(5.0)
        assert kendall_tau(same, tokens) == spearman(same, tokens) == 0
        assert kendall_tau(same, tokens, tokens > 3) == 0


class TestOtherMeasures:
    def test_ndcg_is_that_of_scikit_learn(self):
        metrics = pytest.importorskip("sklearn.metrics")
        draw = np.random.default_rng(1)
        for ties in (5, 1000):
            tokens = draw.permutation(100).astype(float)
            scores = draw.integers(ties, size=100).astype(float)
            gains = 2.0 ** (9 - tokens // 10) - 1
            expected = metrics.ndcg_score([gains], [-scores])
            assert ndcg(scores, tokens) == pytest.approx(expected)

    @given(pairs)
    def test_measures_are_in_range_and_best_for_the_true_order(self, rows):
        scores, tokens, _ = columns(rows)
        assert 0 < ndcg(tokens, tokens) <= 1 + 1e-9
        assert ndcg(scores, tokens) <= ndcg(tokens, tokens) + 1e-9
        assert shortest_overlap(tokens, tokens, 0.5) <= 1
        assert 0 <= shortest_overlap(scores, tokens, 0.3) <= 1

    def test_overlap_by_hand(self):
        tokens = np.array([1.0, 2, 3, 4])
        assert shortest_overlap(np.array([1.0, 3, 2, 4]), tokens, 0.5) == 0.5
        assert shortest_overlap(np.zeros(4), tokens, 0.5) == 0.5
        assert shortest_overlap(tokens, tokens, 0.5) == 1
        assert shortest_overlap(-tokens, tokens, 0.25) == 0


class TestBadInput:
    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_a_score_that_is_no_number_is_one_error(self, wrong):
        with pytest.raises(DataError, match=r"ranker mine: 1 of 3 scores .* for prompt 2"):
            checked_scores([1, wrong, 2], 3, "mine")

    def test_a_wrong_number_of_scores(self):
        with pytest.raises(DataError, match="shape"):
            checked_scores([[1.0], [2.0]], 2, "mine")

    def test_equal_lengths_have_no_order(self):
        with pytest.raises(DataError, match="all 3 answers have 5 tokens"):
            checked_tokens([5, 5, 5])
        with pytest.raises(DataError, match="at least 2"):
            checked_tokens([5])


class TestResampling:
    def test_groups_are_drawn_whole_and_seeds_pair(self):
        groups = ["a", "b", "a", "c"]
        seen = []
        resample(lambda at: seen.append(tuple(at)) or 0.0, groups, draws=200, seed=3)
        for places in seen:
            assert places.count(0) == places.count(2)
            assert sum(places.count(place) for place in (0, 1, 3)) == 3
        again = []
        resample(lambda at: again.append(tuple(at)) or 0.0, groups, draws=200, seed=3)
        assert seen == again
        assert len(set(seen)) > 5

    def test_the_interval_of_a_mean_is_that_of_theory(self):
        values = np.random.default_rng(0).normal(size=400)
        low, high = interval(resample(lambda at: values[at].mean(), range(400), draws=2000))
        assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


class TestQuantiles:
    def test_whole_answers_have_their_middle_rank(self):
        found = length_quantiles(np.array([30.0, 10, 20, 20]), np.zeros(4, bool))
        assert found == pytest.approx([0.875, 0.125, 0.5, 0.5])

    def test_a_cut_answer_is_longer_than_its_bound(self):
        found = length_quantiles(np.array([10.0, 20, 20, 30]), np.array([0, 0, 1, 0], bool))
        # Kaplan-Meier: 1, 3/4 after 10, 1/2 after 20, 0 after 30.
        assert found == pytest.approx([0.125, 0.375, 0.75, 0.75])

    @given(pairs)
    def test_order_is_kept(self, rows):
        _, tokens, cut = columns(rows)
        found = length_quantiles(tokens, cut)
        assert ((found >= 0) & (found <= 1)).all()
        whole = ~cut
        assert (np.diff(found[whole][np.argsort(tokens[whole])]) >= -1e-12).all()


class TestEvaluate:
    def examples(self, count=300):
        draw = random.Random(0)
        return [
            LengthExample("x" * draw.randint(1, 99), draw.randint(1, 999), str(n))
            for n in range(count)
        ]

    def test_an_oracle_reaches_all_and_a_constant_nothing(self):
        examples = self.examples()
        tokens = np.array([each.tokens for each in examples])
        oracle, constant = evaluate(
            {"oracle": tokens, "constant": np.zeros(300)}, examples, draws=20
        )
        assert oracle.tau == pytest.approx(1)
        assert oracle.ndcg == pytest.approx(1)
        assert oracle.shortest == {0.1: 1, 0.25: 1}
        assert oracle.latency_ratio_to_oracle == pytest.approx(1)
        assert oracle.share_of_gain == pytest.approx(1)
        assert oracle.tau_change is None
        assert constant.tau == constant.spearman == 0
        assert constant.tau_change == pytest.approx(-1)
        assert constant.latency_ratio_to_fcfs == pytest.approx(1)

    def test_scores_come_in_order_whatever_the_batch(self):
        examples = self.examples(130)
        expected = PromptLength().score([each.prompt for each in examples])
        counted = []
        assert (score_all(PromptLength(), examples, counted.append) == expected).all()
        assert sum(counted) == 130
