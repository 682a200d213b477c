"""The gang scheduler in vLLM's engine core, stepped by hand in this process."""

import gc
import os

import pytest

from dynasor.embedded_model import path as embedded_model
from dynasor.errors import ConfigError

GANG = "dynasor.scheduling.vllm_scheduler.GangScheduler"
COUNTING = "dynasor.scheduling.vllm_steps.CountingScheduler"
PROMPT = list(range(5, 45))  # 40 tokens: one whole block of 32


@pytest.fixture(scope="module", autouse=True)
def _in_process():
    before = dict(os.environ)
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "1",
        "KMP_BLOCKTIME": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    yield
    os.environ.clear()
    os.environ.update(before)


class Engine:
    """An engine in this process, and what its scheduler has running."""

    def __init__(self, scheduler=GANG, settings=None, slots=4, **arguments):
        from vllm import EngineArgs, LLMEngine

        self.engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=str(embedded_model()),
                dtype="float32",
                block_size=32,
                enforce_eager=True,
                distributed_executor_backend="uni",
                max_num_seqs=slots,
                max_model_len=512,
                disable_log_stats=True,
                scheduler_cls=scheduler,
                additional_config={"dynasor": settings or {"policy": "gang-fcfs"}},
                **{"num_gpu_blocks_override": 400}
                | arguments,  # little to allocate: quick to start
            )
        )
        self.core = self.engine.engine_core.engine_core
        self.scheduler = self.core.scheduler
        self.started = []
        self.finished = {}

    def add(self, name, extra=None, tokens=8, prompt=PROMPT):
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0.0, max_tokens=tokens, min_tokens=tokens, extra_args=extra
        )
        self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, sampling)

    def running(self):
        return [_short(request.request_id) for request in self.scheduler.running]

    def step(self):
        for output in self.engine.step():
            if output.finished:
                self.finished[output.request_id] = output.outputs[0]
        for name in self.running():
            if name not in self.started:
                self.started.append(name)

    def drain(self, limit=5000):
        for _ in range(limit):
            if not self.engine.has_unfinished_requests():
                return
            self.step()
        raise AssertionError("the engine did not come to an end")

    def close(self):
        self.engine.engine_core.shutdown()


def _short(request_id):
    return request_id.rsplit("-", 1)[0]


@pytest.fixture
def start():
    engines = []

    def begin(*args, **kwargs):
        engines.append(Engine(*args, **kwargs))
        return engines[-1]

    yield begin
    for engine in engines:
        engine.close()
    engines.clear()
    gc.collect()


def interleaved(engine, gangs, members=4, extra=lambda gang: {}, tokens=8):
    for index in range(members):
        for gang in gangs:
            engine.add(f"{gang}{index}", {"gang": gang} | extra(gang), tokens)


def test_vllms_own_order_interleaves_queries_and_ours_does_not(start):
    fcfs = start(COUNTING)
    interleaved(fcfs, "ABC")
    fcfs.drain()
    assert fcfs.started[:6] == ["A0", "B0", "C0", "A1", "B1", "C1"]
    fcfs.close()
    ours = start(GANG)
    interleaved(ours, "ABC")
    ours.drain()
    assert ours.started == [f"{gang}{index}" for gang in "ABC" for index in range(4)]
    assert len(ours.finished) == 12
    assert ours.scheduler.kv_cache_manager.usage == 0


@pytest.fixture(scope="module")
def engine_srpt():
    engine = Engine(settings={"policy": "gang-srpt"}, slots=6)
    yield engine
    engine.close()
    gc.collect()


@pytest.fixture
def srpt(engine_srpt):
    """One engine for tests that leave nothing in it."""
    engine_srpt.started.clear()
    engine_srpt.finished.clear()
    yield engine_srpt
    assert engine_srpt.scheduler.requests == {}


def test_the_gang_with_the_least_left_goes_first_and_the_next_fills_the_gaps(srpt):
    left = {"A": 400, "B": 30, "C": 90}
    interleaved(srpt, "ABC", extra=lambda gang: {"gang_tokens": left[gang]})
    srpt.step()
    assert srpt.running() == ["B0", "B1", "B2", "B3", "C0", "C1"]
    srpt.drain()
    assert srpt.started == [f"{gang}{index}" for gang in "BCA" for index in range(4)]


def test_news_of_a_gang_reorder_what_waits(srpt):
    interleaved(srpt, "DEF", members=6, extra=lambda gang: {"gang_tokens": 100})
    srpt.step()
    assert srpt.running() == [f"D{index}" for index in range(6)]
    srpt.core.gang_call("hints", {"news": {"F": {"gang_tokens": 5}, "unknown": {}}})
    assert srpt.core.gang_call("order", {}) == ["F"] * 6 + ["E"] * 6
    srpt.drain()
    assert srpt.started == [f"{gang}{index}" for gang in "DFE" for index in range(6)]


def test_stopped_queries_leave_within_two_steps_and_free_their_memory(srpt):
    interleaved(srpt, "GH", tokens=200)
    for _ in range(20):
        srpt.step()
    assert srpt.running() == ["G0", "G1", "G2", "G3", "H0", "H1"]
    srpt.engine.abort_request([f"G{index}" for index in range(4)])
    for _ in range(2):
        srpt.step()
    assert srpt.running() == ["H0", "H1", "H2", "H3"]
    assert not any(_short(name).startswith("G") for name in srpt.scheduler.requests)
    srpt.engine.abort_request([f"H{index}" for index in range(4)])
    for _ in range(2):
        srpt.step()
    assert srpt.scheduler.requests == {}
    assert srpt.scheduler.kv_cache_manager.usage == 0


@pytest.mark.parametrize(
    "hints",
    [
        None,
        {},
        {"gang": None},
        {"gang": {"deep": [1]}},
        {"gang": ["A"]},
        {"gang": "x" * 100_000},
        {"gang": "A", "gang_tokens": "many"},
        {"gang": "A", "gang_tokens": float("nan"), "gang_deadline": float("inf")},
        {"gang": True, "gang_rank": [1, 2], "gang_certainty": 7},
        {"gang": 2**63, "gang_tokens": -5},
    ],
)
def test_malformed_hints_cost_nothing_but_the_order(start_once, hints):
    before = len(start_once.finished)
    start_once.add(f"odd{before}", hints, tokens=2)
    start_once.drain()
    assert len(start_once.finished) == before + 1


@pytest.fixture(scope="module")
def start_once():
    engine = Engine(settings={"policy": "default"})
    yield engine
    engine.close()
    gc.collect()


def under_pressure(scheduler, **settings):
    """Six requests that do not fit in the cache together: who was preempted, and the counters."""
    settings = {"policy": "gang-fcfs"} | settings
    engine = Engine(scheduler, settings, slots=6, num_gpu_blocks_override=20)
    victims = []
    original = engine.scheduler._preempt_request

    def note(request, *args, **kwargs):
        victims.append(_short(request.request_id))
        original(request, *args, **kwargs)

    engine.scheduler._preempt_request = note
    interleaved(engine, "ABC", members=2, tokens=150)
    engine.drain()
    assert all(len(out.token_ids) == 150 for out in engine.finished.values())
    assert len(engine.finished) == 6
    counters = engine.core.gang_call("counters", {})
    assert counters["preemptions"] == len(victims)
    assert counters["kv_now"] == 0
    engine.close()
    gc.collect()
    return victims, counters


@pytest.fixture(scope="module")
def eager():
    """Under pressure by gangs, but without foresight."""
    return under_pressure(GANG, fit_memory=False)


def test_memory_takes_whole_gangs_and_everyone_finishes(eager):
    theirs, _ = under_pressure(COUNTING)
    assert {name[0] for name in theirs[:2]} == {"B", "C"}
    ours, counters = eager
    assert {name[0] for name in ours[:2]} == {"C"}
    assert counters["recomputed_tokens"] > 0


def test_what_will_not_fit_to_its_end_is_admitted_later_and_less_is_computed_twice(eager):
    foresight, _ = under_pressure(GANG)
    assert len(foresight) < len(eager[0])


def test_siblings_do_not_compute_a_long_prefix_side_by_side(start):
    prompt = [5 + i % 90 for i in range(320)]

    def prefilled(scheduler):
        engine = start(scheduler, long_prefill_token_threshold=64, max_num_batched_tokens=512)
        engine.core.gang_call("steps", {})
        engine.scheduler.log_stats = scheduler == GANG  # with a log vLLM counts anew at each step
        for index in range(4):
            engine.add(f"A{index}", {"gang": "A"}, prompt=prompt)
        engine.drain()
        tokens = sum(step[2] for step in engine.core.gang_call("steps", {}))
        counters = engine.core.gang_call("counters", {})
        engine.close()
        assert counters["prefix_queries"] == 4 * 320
        assert counters["prefix_hits"] == 4 * 320 - tokens
        return tokens

    ours, theirs = prefilled(GANG), prefilled(COUNTING)
    assert ours < 320 + 4 * 33
    assert theirs > 2 * ours


def test_a_stream_of_short_gangs_cannot_starve_a_long_one(start):
    def served_within(turns):
        settings = {"policy": "gang-srpt", "patience": 0, "turns": turns}
        engine = start(settings=settings, slots=2)
        for index in range(2):
            engine.add(f"short{index}", {"gang": f"s{index}", "gang_tokens": 4}, tokens=4)
        engine.add("long", {"gang": "long", "gang_tokens": 400}, tokens=4)
        admitted = 2
        for index in range(2, 60):
            engine.add(f"short{index}", {"gang": f"s{index}", "gang_tokens": 4}, tokens=4)
            engine.step()
            if "long" in engine.started:
                break
        admitted = engine.started.index("long") + 1 if "long" in engine.started else None
        engine.drain()
        engine.close()
        return admitted

    assert served_within(turns=0) is None, "without the guard it starves"
    # Two gangs came before it and have one member each: A + m = 3.
    assert served_within(turns=3) <= 3 * 3


def test_a_wrong_setting_is_named(start):
    with pytest.raises(ConfigError, match=r"scheduler.policy.*no-such.*gang-srpt"):
        start(settings={"policy": "no-such"})
    with pytest.raises(ConfigError, match=r"scheduler\.patiense: no such setting"):
        start(settings={"patiense": 3})


def test_a_vllm_that_lacks_something_is_refused_in_clear_words(monkeypatch):
    from dynasor.scheduling import vllm_hooks

    missing = {"vllm.v1.request.Request": ("no_such_attribute",)}
    monkeypatch.setattr(vllm_hooks, "LEANS_ON", missing)
    with pytest.raises(RuntimeError, match=r"lacks .*no_such_attribute.*policy = \"none\""):
        vllm_hooks.check_vllm()
