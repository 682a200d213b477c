"""The simulated replica against vLLM's own scheduler, which gets invented tokens in place of a model."""

import os
import random
from math import inf

import pytest

from dynasor.embedded_model import path as embedded_model
from dynasor.engines.replica_settings import ReplicaSettings
from dynasor.engines.simulated import Replica
from dynasor.engines.simulated_job import Job
from dynasor.engines.step_time import StepTime
from dynasor.scheduling.arrival_queue import ArrivalQueue


@pytest.fixture(scope="module")
def vllm_config():
    before = dict(os.environ)
    os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}
    from vllm import EngineArgs
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash

    init_none_hash(sha256)
    yield EngineArgs(
        model=str(embedded_model()),
        dtype="float32",
        block_size=32,
        enforce_eager=True,
        max_model_len=512,
        async_scheduling=False,
    ).create_engine_config()
    os.environ.clear()
    os.environ.update(before)


class VLLM:
    """vLLM's scheduler in steps of one second."""

    def __init__(self, config, settings):
        import torch
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.kv_cache_interface import (
            FullAttentionSpec,
            KVCacheConfig,
            KVCacheGroupSpec,
        )
        from vllm.v1.structured_output import StructuredOutputManager

        size = settings.block_size
        config.cache_config.block_size = size
        config.cache_config.num_gpu_blocks = settings.kv_blocks + 1  # vLLM keeps one for itself
        config.scheduler_config.max_num_seqs = settings.max_running
        config.scheduler_config.max_num_batched_tokens = settings.max_batched_tokens
        config.scheduler_config.max_num_scheduled_tokens = None
        spec = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.size = size
        self.scheduler = Scheduler(
            config,
            KVCacheConfig(settings.kv_blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)]),
            StructuredOutputManager(config),
            size,
            hash_block_size=size,
        )
        self.ends, self.cached, self.steps, self.preemptions = {}, {}, 0, 0
        self.token = 0

    def add(self, name, prefix, prompt, output):
        from vllm import SamplingParams
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher
        from vllm.v1.request import Request

        tokens = [1_000_000 * (prefix + 1) + place for place in range(prompt)]
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        request = Request(
            name, tokens, sampling, None, block_hasher=get_request_block_hasher(self.size, sha256)
        )
        self.scheduler.add_request(request)

    def abort(self, name):
        from vllm.v1.request import RequestStatus

        if name in self.scheduler.requests:
            self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def step(self):
        from vllm.v1.outputs import ModelRunnerOutput

        scheduled = self.scheduler.schedule()
        self.steps += 1
        self.preemptions += len(scheduled.preempted_req_ids or ())
        for new in scheduled.scheduled_new_reqs:
            self.cached[new.req_id] = new.num_computed_tokens
        names = list(scheduled.num_scheduled_tokens)
        sampled = []
        for name in names:
            request = self.scheduler.requests[name]
            self.token += 1
            # vLLM has counted the tokens of this step as computed already.
            whole = request.num_computed_tokens >= request.num_tokens
            sampled.append([self.token] if whole else [])
        output = ModelRunnerOutput(
            names, {name: place for place, name in enumerate(names)}, sampled
        )
        self.scheduler.update_from_output(scheduled, output)
        for name in names:
            if name not in self.scheduler.requests:
                self.ends[name] = self.steps


def under_vllm(config, settings, submits, aborts):
    """Ends (in steps) and counters; inputs come at whole seconds, before the step that begins then."""
    vllm = VLLM(config, settings)
    inputs = [(time, 0, vllm.add, spec) for time, spec in submits]
    inputs += [(time, 1, vllm.abort, (name,)) for time, name in aborts]
    inputs.sort(key=lambda row: row[:2])
    second = 0
    while inputs or vllm.scheduler.requests:
        while inputs and inputs[0][0] <= second:
            _, _, act, arguments = inputs.pop(0)
            act(*arguments)
        if vllm.scheduler.requests:
            vllm.step()
        else:
            vllm.steps += 1  # an idle second
        second += 1
    return vllm


def simulated(settings, submits, aborts):
    machine = Replica(settings, lambda clock: ArrivalQueue())
    jobs = {spec[0]: Job(spec[0], "g", str(spec[1]), *spec[2:]) for _, spec in submits}
    # A step looks at what came until it begins; who is cut leaves at the end of the step before.
    inputs = [(time, 0, jobs[spec[0]]) for time, spec in submits]
    inputs += [(time - 0.5, 1, jobs[name]) for time, name in aborts]
    inputs.sort(key=lambda row: row[:2])
    ends = {}
    while inputs or machine.due < inf:
        if inputs and inputs[0][0] <= machine.due:
            time, what, job = inputs.pop(0)
            (machine.submit if what == 0 else machine.abort)(job, time)
            continue
        now = machine.due
        ends |= {report.job.name: now for report in machine.advance() if report.finished}
        machine.schedule()
    return machine, jobs, ends


@pytest.mark.parametrize("seed", range(60))
def test_the_replica_does_what_vllm_does(vllm_config, seed):
    draw = random.Random(seed)
    size = draw.choice([2, 4, 8])
    need = -(-70 // size)
    settings = ReplicaSettings(
        StepTime(1.0),
        max_running=draw.randint(2, 8),
        max_batched_tokens=draw.choice([8, 16, 64, 256]),
        kv_blocks=need + draw.randint(0, 3 * need),
        block_size=size,
    )
    submits, aborts = [], []
    time = 1
    for gang in range(8):
        time += draw.randint(0, 30)
        prompt = draw.randint(2, 30)
        # Where a prompt fills its last block, vLLM keeps a copy a sibling; the replica keeps none.
        prompt += prompt % size == 0
        for member in range(draw.randint(1, 5)):
            name = f"{gang}/{member}"
            submits.append((time, (name, gang, prompt, draw.randint(1, 40))))
            if draw.random() < 0.2:
                aborts.append((time + draw.randint(1, 60), name))
    vllm = under_vllm(vllm_config, settings, submits, aborts)
    machine, jobs, ends = simulated(settings, submits, aborts)
    cut = {name for _, name in aborts}
    assert {name: end for name, end in ends.items() if name not in cut} == {
        name: end for name, end in vllm.ends.items() if name not in cut
    }
    assert machine.counters.preemptions == vllm.preemptions
    assert {name: jobs[name].cached for name in vllm.cached} == vllm.cached
    assert machine.free_blocks == settings.kv_blocks
