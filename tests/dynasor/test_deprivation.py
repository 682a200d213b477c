"""Curves of chains that are cut early."""

import pytest

from algorithms.dynasor_cot import Probe
from certaindex.stopping import parse_rule
from dynasor.bench.deprivation import Chain, curve, run_chains, stop_of
from dynasor.config import load_config
from dynasor.suites import Query, Suite
from tests.algorithms.conftest import fresh_groups
from tests.dynasor.test_program_events import ChainEngine

PROBES = (Probe(10, 2, "1"), Probe(20, 2, "7"), Probe(30, 3, "7"), Probe(40, 2, "9"))
CHAIN = Chain("q", PROBES, (False, True, True, False), tokens=50, final_right=True, stop=2)


@pytest.mark.parametrize(
    ("limit", "plain", "early"),
    [
        (5, (False, 5), (False, 5)),
        (12, (False, 14), (False, 14)),
        (25, (True, 27), (True, 29)),
        (45, (False, 47), (True, 37)),
        (50, (True, 50), (True, 37)),
        (999, (True, 50), (True, 37)),
    ],
)
def test_a_chain_answers_with_its_last_probe_or_its_own_end(limit, plain, early):
    assert CHAIN.at(limit, early=False) == plain
    assert CHAIN.at(limit, early=True) == early


def test_where_a_rule_stops():
    assert stop_of(PROBES, parse_rule("stable:2"), fresh_groups()) == 2
    assert stop_of(PROBES, parse_rule("stable:3"), fresh_groups()) is None
    assert stop_of((), parse_rule("stable:2"), fresh_groups()) is None


def test_a_curve_has_means_and_intervals():
    low, high = curve([CHAIN, CHAIN], [5, 999])
    assert (low.accuracy, low.tokens) == (0.0, 5.0)
    assert (high.accuracy, high.early_accuracy, high.early_tokens) == (1.0, 1.0, 37.0)
    assert high.early_accuracy_interval == (1.0, 1.0)


async def test_a_live_chain_is_run_to_its_end_and_judged():
    config = load_config(
        overrides={
            "algorithm": {"name": "dynasor-cot", "max_tokens": 300, "cot": {"interval": 10}}
        },
        environment={},
    )
    engine = ChainEngine(["8}", "7}", "7}", "7}"] + ["7}"] * 30, last="7}", ticks=8)
    suite = Suite("s", (Query("a", "?", "7"), Query("b", "?", None)), "boxed")
    (chain,) = await run_chains(config, suite, engine, parse_rule("stable:3"))
    assert chain.query == "a"
    assert chain.final_right
    assert chain.right[:4] == (False, True, True, True)
    assert chain.stop == 3
    assert chain.at(10_000, early=True)[0]
