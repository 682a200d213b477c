"""What one request has produced so far, gathered from vLLM's outputs."""

from __future__ import annotations

from typing import Any

from algorithms.program import FinishReason, Generation, Progress, Sampling, ScoredToken


class VLLMOutput:
    """What a request has produced so far, gathered from vLLM's outputs."""

    def __init__(self, sampling: Sampling) -> None:
        self._wanted = sampling
        self.text = ""
        self.tokens = 0
        self.confidence: list[float] | None = None
        self._logprobs: list[float] | None = None
        self._scored: list[ScoredToken] = []
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._finish_reason: str | None = None

    def take(self, output: Any) -> None:
        """Add a vLLM `RequestOutput`: what is new, or all of it where it is the only one."""
        self._prompt_tokens = len(output.prompt_token_ids or ())
        self._cached_tokens = max(self._cached_tokens, output.num_cached_tokens or 0)
        new = output.outputs[0]
        self.text += new.text
        self.tokens += len(new.token_ids)
        self._finish_reason = new.finish_reason
        if new.logprobs and (top := self._wanted.top_logprobs):
            self.confidence = self.confidence or []
            self.confidence += [_confidence(token, top) for token in new.logprobs]
        if new.logprobs and self._wanted.logprobs:
            self._logprobs = self._logprobs or []
            self._logprobs += [
                entries[token].logprob
                for token, entries in zip(new.token_ids, new.logprobs, strict=True)
            ]

        if new.logprobs and self._wanted.alternatives is not None:
            self._scored += [
                _scored(token, entries, self._wanted.alternatives)
                for token, entries in zip(new.token_ids, new.logprobs, strict=True)
            ]

    def progress(self, request: str) -> Progress:
        """The request so far."""
        return Progress(
            request, self.text, self.tokens, self.confidence, self._logprobs, self._scored
        )

    def generation(self, request: str, error: str | None = None) -> Generation:
        """The end of the request."""
        reason: FinishReason = "error"
        if error is None:
            reasons: dict[str | None, FinishReason] = {
                "stop": "stop",
                "length": "length",
                "abort": "aborted",
            }
            reason = reasons.get(self._finish_reason, "error")
        return Generation(
            request=request,
            text=self.text,
            tokens=self.tokens,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            finish_reason=reason,
            confidence=self.confidence,
            logprobs=self._logprobs,
            scored=self._scored,
            error=error or (None if reason != "error" else f"vLLM ended it: {self._finish_reason}"),
        )


def _confidence(entries: dict[int, Any], top: int) -> float:
    """Negative mean of the `top` largest log-probabilities of one token (DeepConf).

    vLLM adds the chosen token where it is not among them.
    """
    values: list[float] = [entry.logprob for entry in entries.values() if entry.rank <= top]
    return -sum(values) / len(values)


def _scored(token: int, entries: dict[int, Any], alternatives: int) -> ScoredToken:
    ranked = sorted(entries.values(), key=lambda entry: entry.rank)[:alternatives]
    chosen = entries[token]
    return ScoredToken(
        chosen.decoded_token or "",
        chosen.logprob,
        tuple((entry.decoded_token or "", entry.logprob) for entry in ranked),
    )
