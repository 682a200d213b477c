"""What ordering costs in a real engine: 10,000 requests in 1,000 gangs wait while the batch decodes.

    python benchmarks/scheduler_step.py

vLLM in this process with the embedded model, one engine a policy: the time inside the scheduler's
`schedule`, median and p99 over the steps, and its share of the whole step. News of 8 gangs come between
two steps. `vllm` is vLLM's own order.
"""

import argparse
import gc
import json
import os
import random
import statistics
from time import perf_counter

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
    "KMP_BLOCKTIME": "0",
}

from vllm import EngineArgs, LLMEngine, SamplingParams

from dynasor.embedded_model import path as embedded_model

NEWS = 8


def measure(policy: str, options: argparse.Namespace) -> dict[str, float]:
    kind = "vllm_steps.CountingScheduler" if policy == "vllm" else "vllm_scheduler.GangScheduler"
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=str(embedded_model()),
            dtype="float32",
            block_size=32,
            enforce_eager=True,
            distributed_executor_backend="uni",
            max_num_seqs=options.slots,
            max_model_len=512,
            disable_log_stats=True,
            scheduler_cls=f"dynasor.scheduling.{kind}",
            additional_config={} if policy == "vllm" else {"dynasor": {"policy": policy}},
        )
    )
    core = engine.engine_core.engine_core
    numbers = random.Random(1)
    prompt = {"prompt_token_ids": list(range(5, 45))}
    for index in range(options.requests):
        gang = index % options.gangs
        hints = {
            "gang_tokens": numbers.randrange(100, 9000),
            "gang_deadline": numbers.uniform(1, 600),
        }
        tokens = numbers.randrange(20, 60)
        sampling = SamplingParams(
            max_tokens=tokens,
            min_tokens=tokens,
            temperature=0.0,
            extra_args={"gang": f"g{gang}", "gang_rank": float(index % 97), **hints},
        )
        engine.add_request(f"r{index}", prompt, sampling)
    inside: list[float] = []
    original = core.scheduler.schedule

    def timed(*args: object) -> object:
        begin = perf_counter()
        output = original(*args)
        inside.append(perf_counter() - begin)
        return output

    core.scheduler.schedule = timed
    steps = []
    news = 0.0
    for _ in range(options.steps):
        if policy != "vllm":
            told = {
                f"g{numbers.randrange(options.gangs)}": {
                    "gang_tokens": numbers.randrange(100, 9000)
                }
                for _ in range(NEWS)
            }
            begin = perf_counter()
            core.gang_call("hints", {"news": told})
            news += perf_counter() - begin
        begin = perf_counter()
        engine.step()
        steps.append(perf_counter() - begin)
    engine.engine_core.shutdown()
    del engine, core
    gc.collect()
    # The first steps fill the batch.
    inside, steps = inside[20:], steps[20:]
    return {
        "schedule_us": 1e6 * statistics.median(inside),
        "schedule_p99_us": 1e6 * sorted(inside)[int(0.99 * len(inside))],
        "news_us": 1e6 * news / options.steps,
        "step_ms": 1e3 * statistics.median(steps),
        "share": sum(inside) / sum(steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--gangs", type=int, default=1_000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--policy", action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    policies = options.policy or ["vllm", "gang-fcfs", "gang-srpt", "deadline", "default", "vllm"]
    rows = [(policy, measure(policy, options)) for policy in policies]
    if options.json:
        print(json.dumps(rows))
        return
    print(
        "| order | schedule, median us | p99 us | news of 8 gangs, us | step, ms | share of the step |"
    )
    print("|---|---|---|---|---|---|")
    for policy, row in rows:
        print(
            f"| {policy} | {row['schedule_us']:.0f} | {row['schedule_p99_us']:.0f} "
            f"| {row['news_us']:.0f} | {row['step_ms']:.1f} | {100 * row['share']:.1f}% |"
        )


if __name__ == "__main__":
    main()
