"""How a request is sampled, in vLLM's words."""

from __future__ import annotations

from typing import Any

from algorithms.program import Request, Sampling


def sampling_params(request: Request, extra: dict[str, Any], *, on_cpu: bool) -> Any:
    """The `vllm.SamplingParams` of a request.

    Args:
        request: what is asked for.
        extra: arguments that go with it to our scheduler.
        on_cpu: whether vLLM runs on the CPU, where seeds are our own (`vllm_seed`).

    Raises:
        ValueError: if vLLM cannot sample so.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    wanted = request.sampling
    arguments: dict[str, Any] = {
        "temperature": wanted.temperature,
        "top_p": wanted.top_p,
        "max_tokens": wanted.max_tokens,
        "stop": list(wanted.stop) or None,
        "include_stop_str_in_output": wanted.keep_stop,
        "logprobs": _logprobs(wanted),
        "output_kind": RequestOutputKind.DELTA
        if request.report_every
        else RequestOutputKind.FINAL_ONLY,
        "stream_interval": request.report_every,
    }
    if wanted.seed is not None and wanted.temperature > 0:
        if on_cpu:
            if wanted.top_p < 1:
                raise ValueError("top_p below 1 does not go with a seed on CPU")
            arguments["temperature"] = 0.0
            extra = extra | {
                "dynasor_seed": wanted.seed,
                "dynasor_temperature": wanted.temperature,
            }
        else:
            arguments["seed"] = wanted.seed
    return SamplingParams(**arguments, extra_args=extra or None)


def _logprobs(wanted: Sampling) -> int | None:
    """How many log-probabilities vLLM is to give of each token, besides the chosen one's."""
    if not wanted.top_logprobs and not wanted.logprobs and wanted.alternatives is None:
        return None
    return max(wanted.top_logprobs, wanted.alternatives or 0)
