"""Curves of chains that are cut early."""

import json

import pytest

from algorithms.dynasor_cot import Probe
from certaindex.stopping import parse_rule
from dynasor.bench.chain_folder import CHAINS, Chain, ChainFolder
from dynasor.bench.deprivation import Cut, curve, cut_by, run_chains, saving_of, stop_of
from dynasor.bench.deprivation_plot import save_deprivation
from dynasor.config import load_config
from dynasor.errors import RunError
from dynasor.suites import Query, Suite
from tests.algorithms.conftest import fresh_groups
from tests.dynasor.test_program_events import ChainEngine

PROBES = (
    Probe(10, 2, "1", 30, 0),
    Probe(20, 2, "7", 40, 32),
    Probe(30, 3, "7", 50, 48),
    Probe(40, 2, "9", 60, 48),
)
CHAIN = Chain("q", PROBES, (False, True, True, False), tokens=50, final_right=True)
CUT = Cut(CHAIN, stop=2)


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
    assert CUT.at(limit, early=False) == plain
    assert CUT.at(limit, early=True) == early


def test_where_a_rule_stops():
    assert stop_of(PROBES, parse_rule("stable:2"), fresh_groups()) == 2
    assert stop_of(PROBES, parse_rule("stable:3"), fresh_groups()) is None
    assert stop_of((), parse_rule("stable:2"), fresh_groups()) is None
    assert [cut.stop for cut in cut_by(parse_rule("stable:2"), [CHAIN])] == [2]


def test_a_curve_has_means_and_intervals(tmp_path):
    low, high = points = curve([CUT, CUT], [5, 999])
    assert (low.accuracy, low.tokens) == (0.0, 5.0)
    assert (high.accuracy, high.early_accuracy, high.early_tokens) == (1.0, 1.0, 37.0)
    assert high.early_accuracy_interval == (1.0, 1.0)
    save_deprivation(points, "stable:2", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_what_is_saved_has_the_probes_in_its_bill():
    to_its_end = Cut(Chain("r", PROBES[:1], (False,), tokens=20, final_right=True), stop=None)
    saving = saving_of([CUT, to_its_end])
    assert saving.stopped == 1
    assert saving.accuracy_change == 0.0
    assert saving.tokens_ratio == (37 + 22) / 70
    assert saving.probe_share == (7 + 2) / 59
    assert saving.cached_share == 80 / 150, "the fourth probe comes after the stop"


def config_of(interval=10):
    cot = {"interval": interval}
    algorithm = {"name": "dynasor-cot", "max_tokens": 300, "cot": cot}
    return load_config(overrides={"algorithm": algorithm}, environment={})


SUITE = Suite("s", (Query("a", "?", "7"), Query("b", "?", None)), "boxed")


async def test_a_live_chain_is_run_to_its_end_judged_and_kept(tmp_path):
    engine = ChainEngine(["8}", "7}", "7}", "7}"] + ["7}"] * 30, last="7}", ticks=8)
    with ChainFolder(tmp_path, {"suite": "s"}) as folder:
        (chain,) = await run_chains(config_of(), SUITE, engine, folder)
    assert chain.query == "a"
    assert chain.final_right
    assert chain.right[:4] == (False, True, True, True)
    assert chain.tokens == 80 + 2, "the chain and its last words"
    (cut,) = cut_by(parse_rule("stable:3"), [chain])
    assert cut.stop == 3
    assert cut.at(10_000, early=True)[0]
    with ChainFolder(tmp_path, {"suite": "s"}) as folder:
        assert await run_chains(config_of(), SUITE, None, folder) == [chain], "nothing is run again"


class LosesProbes(ChainEngine):
    """An engine that fails all probes."""

    async def submit(self, request):
        async for event in super().submit(request):
            if request.kind == "probe":
                event = type(event)(request.id, "", 0, finish_reason="error", error="gone")
            yield event


async def test_a_chain_of_which_a_part_failed_is_not_kept(tmp_path):
    engine = LosesProbes(["7}"] * 30, ticks=4)
    with ChainFolder(tmp_path, {"suite": "s"}) as folder:
        assert await run_chains(config_of(), SUITE, engine, folder) == []
    assert (tmp_path / CHAINS).read_bytes() == b""


def test_a_folder_of_another_run_or_with_a_damaged_line_is_refused(tmp_path):
    with ChainFolder(tmp_path, {"suite": "s"}) as folder:
        folder.write(CHAIN)
    with pytest.raises(RunError, match="other settings"):
        ChainFolder(tmp_path, {"suite": "t"})
    lines = (tmp_path / CHAINS).read_text()
    (tmp_path / CHAINS).write_text(lines + '{"query": "torn')
    with ChainFolder(tmp_path, {"suite": "s"}) as folder:
        assert folder.chains == {"q": CHAIN}, "what a kill has left of a line is dropped"
    row = json.loads(lines)
    for wrong in ("[]", '{"query": 1}', json.dumps(row | {"right": [True]})):
        (tmp_path / CHAINS).write_text(wrong + "\n")
        with pytest.raises(RunError, match="line 1 is damaged"):
            ChainFolder(tmp_path, {"suite": "s"})
    with ChainFolder(tmp_path, {"suite": "t"}, fresh=True) as folder:
        assert not folder.chains
