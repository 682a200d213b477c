"""What clients send: OpenAI's fields with their limits, and `dynasor`, which is ours.

A field of OpenAI's that this server cannot honour is taken with the value that asks for nothing, and
refused by name with any other. A field that nobody knows is refused, as OpenAI does. Three are vLLM's:
`continue_final_message`, `add_generation_prompt` and `include_stop_str_in_output`, so that programs
which go on from unfinished texts run against this server as against vLLM's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from certaindex.stopping import parse_rule
from dynasor.server_config import AlgorithmName, EffortName
from serving.program_settings import ProgramOptions

LARGEST = 1 << 31
"""Above any count of tokens, samples or milliseconds."""


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _asks_for_nothing(value: Any) -> Any:
    if value and value not in ("none", "auto", 1, ["text"], {"type": "text"}):
        raise PydanticCustomError("unsupported", "this server does not support it")
    return value


Unsupported = Annotated[Any, AfterValidator(_asks_for_nothing)]
"""A field that may only ask for nothing."""
Ignored = Annotated[Any, Field(description="taken, and changes nothing")]


class TextPart(_Fields):
    """A part of a message; only texts are understood."""

    type: Literal["text"]
    text: str


class ChatMessage(_Fields):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(None, max_length=256)
    # Clients send their assistant's turns back as they got them.
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    tool_calls: Unsupported = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Fields):
    """How a stream is sent."""

    include_usage: bool | None = Field(None, description="a last chunk with the usage")
    include_obfuscation: Ignored = None


class Budget(_Fields):
    """What a query may cost at most."""

    samples: int | None = Field(None, ge=1, le=LARGEST)
    tokens: int | None = Field(
        None, ge=1, le=LARGEST, description="output tokens; no sample is begun once they are spent"
    )
    seconds: float | None = Field(None, gt=0, le=1e6)


class Stop(_Fields):
    """When a query has had enough."""

    rule: str | None = Field(None, max_length=200, description="see `dynasor rules`")

    @field_validator("rule")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            parse_rule(value)
        return value


class DynasorOptions(ProgramOptions):
    """`dynasor` in the body (`extra_body` of OpenAI's clients): how to think about the question."""

    algorithm: AlgorithmName | None = None
    budget: Budget = Budget()
    stop: Stop = Stop()
    wave: int | None = Field(None, ge=1, le=1024, description="samples in flight")
    deadline_ms: int | None = Field(
        None, ge=1, le=LARGEST, description="then the best answer so far, marked as such"
    )
    priority: int = Field(
        0, ge=-8, le=8, description="each step up doubles the weight in the scheduler's order"
    )


class _CommonRequest(_Fields):
    model: str = Field(min_length=1, max_length=400)
    max_tokens: int | None = Field(None, ge=1, le=LARGEST)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=1024)
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512)
    dynasor: DynasorOptions = DynasorOptions()
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    logit_bias: Unsupported = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, value: str | list[str] | None) -> str | list[str] | None:
        texts = [value] if isinstance(value, str) else value or []
        if len(texts) > 16 or any(not 0 < len(text) <= 256 for text in texts):
            raise ValueError("at most 16 texts of 1 to 256 characters")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the output."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(_CommonRequest):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=LARGEST)
    reasoning_effort: EffortName | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    continue_final_message: bool | None = Field(
        None, description="go on with the assistant's last message"
    )
    add_generation_prompt: bool | None = None
    metadata: dict[str, str] | None = Field(None, max_length=16)
    response_format: Unsupported = None
    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    modalities: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    prediction: Ignored = None
    parallel_tool_calls: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    verbosity: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None


class CompletionRequest(_CommonRequest):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Unsupported = None
    suffix: Unsupported = None
    best_of: Unsupported = None

    @field_validator("prompt")
    @classmethod
    def _one_prompt(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and len(value) != 1:
            raise ValueError("one prompt a request; send several requests for several prompts")
        return value

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]
