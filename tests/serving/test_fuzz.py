"""Whatever is sent, and whatever the model says: an answer or a clear refusal, and never a 500."""

import asyncio
import json
from string import printable

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine

FIELDS = [
    "model", "messages", "prompt", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "stop", "seed", "stream", "stream_options", "user", "metadata", "logprobs", "top_logprobs",
    "reasoning_effort", "dynasor", "tools", "tool_choice", "response_format", "logit_bias", "unknown",
    "continue_final_message", "add_generation_prompt", "include_stop_str_in_output",
]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([
        MODEL, f"{MODEL}:self-consistency", f"{MODEL}:dynasor-cot", "deepconf", "low", "user", "\ud800",
        1e308, 10**400,
    ])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "budget",
                    "samples",
                    "stop",
                    "rule",
                    "x",
                    "type",
                    "text",
                    "algorithm",
                    "search",
                    "children",
                    "cot",
                    "interval",
                    "deepconf",
                    "keep",
                    "write",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
MANY = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def post(root, path, content):
    headers = {"content-type": "application/json"}
    return httpx.post(f"{root}{path}", content=content, headers=headers, timeout=30)


def check(response):
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_any_json_is_answered_or_refused(shared, path):
    @MANY
    @given(BODIES, st.booleans())
    def fuzz(body, valid):
        if valid:  # come past the required fields
            body = {"model": MODEL, "messages": QUESTION, "prompt": "x", **body}
            body.pop("prompt" if "chat" in path else "messages", None)
        check(post(shared.root, path, json.dumps(body)))

    await asyncio.to_thread(fuzz)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model":' * 5000,
        b'{"model": NaN}', b'{"n": ' + b"9" * 5000 + b"}", b'{"model": "\\ud800"}',
    ],
)  # fmt: skip
async def test_any_bytes_are_refused(shared, content):
    response = await asyncio.to_thread(post, shared.root, "/v1/chat/completions", content)
    check(response)
    assert 400 <= response.status_code < 500


HOSTILE = [
    "\\boxed{" * 3000, "\\boxed{" + "9" * 5000 + "}", "\\boxed{9^9^9^9^9^9}", "\\boxed{\\frac{1}{0}}",
    "\\boxed{__import__('os').system('x')}", "\\boxed{\x00\x1b[2J}", "\\boxed{\ud800}", "",
    "data: [DONE]\n\ndata: {}", "\\boxed{</script><script>alert(1)</script>}", "\u202e\\boxed{1}",
    "\\boxed{\\sum_{n=1}^{10^{10}} n!}", printable,
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_hostile_answers_hurt_nobody(stream):
    engine = ScriptedEngine(lambda request: HOSTILE[request.index % len(HOSTILE)])
    async with running(engine, deadline=0.5) as server, server.http() as http:
        body = {"model": f"{MODEL}:self-consistency", "messages": QUESTION, "stream": stream}
        budget = {"samples": len(HOSTILE)}
        body["dynasor"] = {"budget": budget, "wave": 8, "stop": {"rule": f"fixed:{len(HOSTILE)}"}}
        response = await http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        if not stream:
            assert response.json()["dynasor"]["samples"] == len(HOSTILE)
        else:
            assert response.text.endswith("data: [DONE]\n\n")
            assert '"state":"done"' in response.text
        assert (await http.get("/healthz")).status_code == 200


def probe(operation):
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def calls(case):
        response = case.call(timeout=30)
        assert response.status_code < 500, response.text

    calls()


async def test_our_own_openapi_schema_finds_no_server_error(shared):
    import schemathesis  # a second of imports, which not every worker need spend

    def run():
        schema = schemathesis.openapi.from_url(f"{shared.root}/openapi.json")
        for operation in schema.get_all_operations():
            probe(operation.ok())

    await asyncio.to_thread(run)
