"""What a request says to an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algorithms.program import Request
from dynasor.scheduling.gang import GANG, Hints


def body_of(
    request: Request, model: str | None, options: Mapping[str, Any], hints: Hints | None
) -> dict[str, Any]:
    """Arguments of the client's `create`: of completions for a text, of chat for messages.

    A chat request's `prefix` is the assistant's last message, to be continued: vLLM's
    `continue_final_message`. `keep_stop` is vLLM's `include_stop_str_in_output`.

    Args:
        request: what is asked.
        model: its name on the server.
        options: more stream options.
        hints: sent with the gang's id as vLLM's extra arguments; None leaves both out.
    """
    sampling = request.sampling
    extra: dict[str, Any] = {}
    if hints is not None:
        extra["vllm_xargs"] = {GANG: request.program, **hints.as_arguments()}
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True, **options},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "extra_body": extra,
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
        if sampling.keep_stop:
            extra["include_stop_str_in_output"] = True
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    top = max(sampling.top_logprobs, sampling.alternatives or 0)
    wanted = top or sampling.logprobs or sampling.alternatives is not None
    if isinstance(request.prompt, str):
        body["prompt"] = request.prompt + request.prefix
        if wanted:
            body["logprobs"] = top
        return body
    body["messages"] = [dict(message) for message in request.prompt]
    if request.prefix:
        body["messages"].append({"role": "assistant", "content": request.prefix})
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    if wanted:
        body |= {"logprobs": True, "top_logprobs": top}
    return body
