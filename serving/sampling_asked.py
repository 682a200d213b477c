"""What a request of a client says of its prompt and of how each sample is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from algorithms.program import Message, Prompt, Sampling
from dynasor.config import Config
from dynasor.programs import sampling_of
from dynasor.server_config import AlgorithmName
from serving.api_errors import ApiError
from serving.openai_protocol import ChatRequest, CompletionRequest
from serving.program_settings import SEARCHES

SEEDS = 1 << 31
PROGRESS_EVERY = 16
"""Tokens between the progress events of a sample in a stream."""


def at_most(value: float, limit: float, name: str) -> int:
    """A value that is within its limit.

    Raises:
        ApiError: 400 naming the field, if it is not.
    """
    if value > limit:
        raise ApiError(
            400, f"{name}: {value:.12g} is more than this server's {limit:.12g}", param=name
        )
    return cast(int, value)


def sampling_for(
    asked: ChatRequest | CompletionRequest, config: Config, algorithm: AlgorithmName
) -> Sampling:
    """How each request of the query samples.

    Args:
        asked: the body.
        config: of the query.
        algorithm: of the query.

    Raises:
        ApiError: 400 naming a field that asks for too much, or for what the algorithm cannot do.
    """
    plain = algorithm == "none"
    if plain or algorithm == "agentwrite":
        base = Sampling(max_tokens=config.algorithm.max_tokens)
    else:
        base = sampling_of(config)
    name, tokens = "max_tokens", asked.max_tokens
    if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
        name, tokens = "max_completion_tokens", asked.max_completion_tokens
    if tokens is not None:
        at_most(tokens, config.server.max_tokens, name)
    limit = tokens or base.max_tokens
    if not plain and asked.logprobs not in (None, False):
        raise ApiError(
            400,
            "logprobs: only of plain requests, not of answers that many samples agreed on",
            param="logprobs",
        )
    if asked.stops and algorithm in SEARCHES:
        raise ApiError(
            400, f"stop: {algorithm} stops at its steps' ends (dynasor.search)", param="stop"
        )
    if asked.dynasor.budget.tokens is not None:
        limit = min(limit, asked.dynasor.budget.tokens)
    return replace(
        base,
        max_tokens=limit,
        temperature=base.temperature if asked.temperature is None else asked.temperature,
        top_p=base.top_p if asked.top_p is None else asked.top_p,
        stop=asked.stops,
        keep_stop=bool(asked.include_stop_str_in_output),
        alternatives=_alternatives(asked),
        seed=None if asked.seed is None else asked.seed % SEEDS,
    )


def _alternatives(asked: ChatRequest | CompletionRequest) -> int | None:
    """How many likely tokens are wanted in each place; None for no log-probabilities."""
    if isinstance(asked, CompletionRequest):
        return asked.logprobs
    if not asked.logprobs:
        if asked.top_logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        return None
    return asked.top_logprobs or 0


def prompt_for(
    asked: ChatRequest | CompletionRequest, algorithm: AlgorithmName, instruction: str
) -> Prompt:
    """What the model is asked; the last question of a user gets the instruction to reason. A message
    that is to be continued is left out: it is the beginning of the answer.

    Raises:
        ApiError: 400 if the algorithm cannot take such a conversation.
    """
    if isinstance(asked, CompletionRequest):
        return asked.text
    messages = [
        Message(role="system" if turn.role == "developer" else turn.role, content=turn.text)
        for turn in asked.messages
    ]
    if asked.continue_final_message:
        del messages[-1]
    if algorithm == "agentwrite":
        if [turn["role"] for turn in messages] != ["user"]:
            message = "agentwrite takes one message of the user, which says what to write"
            raise ApiError(400, f"messages: {message}", param="messages")
    elif algorithm != "none" and instruction and messages[-1]["role"] == "user":
        messages[-1]["content"] += f"\n\n{instruction}"
    return tuple(messages)


def prefix_for(asked: ChatRequest | CompletionRequest, algorithm: AlgorithmName) -> str:
    """The beginning of the answer, which the client has sent as the assistant's last message.

    Raises:
        ApiError: 400 naming a field that asks for something else than to go on with that message.
    """
    if isinstance(asked, CompletionRequest):
        return ""
    going_on, field, problem = bool(asked.continue_final_message), "continue_final_message", None
    if going_on and algorithm != "none":
        problem = f"only of plain requests, {algorithm} begins its answers itself"
    elif going_on and (len(asked.messages) < 2 or asked.messages[-1].role != "assistant"):
        problem = "the last message must be the assistant's, after another"
    elif asked.add_generation_prompt is going_on:
        field = "add_generation_prompt"
        problem = "one of this and continue_final_message must be true, and not both"
    if problem is not None:
        raise ApiError(400, f"{field}: {problem}", param=field)
    return asked.messages[-1].text if going_on else ""


def report_every_for(
    asked: ChatRequest | CompletionRequest, algorithm: AlgorithmName, in_hurry: bool
) -> int | None:
    """Tokens between two progress events of a sample; None for none."""
    if asked.stream:
        return 1 if algorithm == "none" else PROGRESS_EVERY
    # A plain answer that is cut short is given as far as it got.
    return PROGRESS_EVERY if in_hurry and algorithm == "none" else None
