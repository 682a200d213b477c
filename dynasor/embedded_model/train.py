"""Train the embedded model from scratch: `python -m dynasor.embedded_model.train --out DIR`.

The corpus is made on the fly and never repeats. Matrices are trained with Muon (momentum whose
update is made orthogonal), the rest with AdamW: on two CPU cores that reaches in half an hour
what AdamW alone needs far longer for.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from dynasor.embedded_model.corpus import (
    VOCABULARY,
    Batch,
    Corpus,
    save_tokenizer,
    train_tokenizer,
)

CHECKPOINT_SECONDS = 240.0
WARM_UP_SHARE = 0.02

SOFTNESS = 1.25
"""The logits of the saved model are divided by this. Sampled at temperature 1 it then slips more
often at random, and so shows what votes of several samples are for."""


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalised update, in fp32 (torch's own works in bf16: slow here)."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update to every matrix."""
        for group in self.param_groups:
            for weight in group["params"]:
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * 0.02)
                weight.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """The nearest orthogonal matrix, roughly (Newton-Schulz iteration of degree five)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def new_model(hidden: int, layers: int, seed: int) -> LlamaForCausalLM:
    """A decoder with random weights; attention heads are 32 wide, which vLLM has on a CPU."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy (nats) of the tokens to be learned; the others never reach the head."""
    # Padding is on the right and attention is causal, so no mask is needed.
    hidden = model.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
    learned = batch.learned[:, 1:]
    logits = model.lm_head(hidden[learned])
    loss: torch.Tensor = functional.cross_entropy(logits, batch.ids[:, 1:][learned])
    return loss


def optimizers_of(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98))]


def rate(progress: float) -> float:
    """The share of the full learning rate at this progress (0..1): warm-up, then a cosine."""
    if progress < WARM_UP_SHARE:
        return progress / WARM_UP_SHARE + 1e-3
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) * 0.98 + 0.02


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder that vLLM and transformers serve: bf16 weights, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    # The head has no bias, so a smaller last norm makes all logits smaller in proportion.
    half.model.norm.weight.data.div_(SOFTNESS)
    half.to(torch.bfloat16)
    half.config.dtype = "bfloat16"
    half.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=0, pad_token_id=1
    )
    half.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


class Run:
    """One training run: what it holds in memory, and its checkpoint on disk."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.out: Path = arguments.out
        self.model = new_model(arguments.hidden, arguments.layers, arguments.seed)
        self.optimizers = optimizers_of(self.model)
        self.full_rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        self.step, self.seconds = 0, 0.0
        self._state = self.out / "training_state.pt"
        if self._state.exists():
            self.tokenizer = Tokenizer.from_file(str(self.out / "tokenizer.json"))
        else:
            self.tokenizer = train_tokenizer(arguments.seed)

    def resume(self) -> None:
        """Go on from the checkpoint in the output folder, if there is one."""
        if self._state.exists():
            state = torch.load(self._state, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]
            print(f"resumed at step {self.step}, {self.seconds:.0f} s")

    def checkpoint(self) -> None:
        """Write the model in its final form, and the state that `resume` reads."""
        save(self.model, self.tokenizer, self.out)
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self._state.with_suffix(".new"))
        self._state.with_suffix(".new").replace(self._state)

    @property
    def progress(self) -> float:
        """How much of the run is done, 0..1: by steps where they are given, else by time."""
        if self.arguments.steps:
            return float(self.step / self.arguments.steps)
        return float(self.seconds / (60 * self.arguments.minutes))

    def learn(self, batch: Batch) -> float:
        """One step; returns its loss."""
        share = rate(self.progress)
        for optimizer, full in zip(self.optimizers, self.full_rates, strict=True):
            optimizer.param_groups[0]["lr"] = full * share
        loss = loss_of(self.model, batch)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return loss.item()

    def train(self) -> None:
        """Train until the time or the steps are used up."""
        # A resumed run goes on with other problems than those that it has seen.
        corpus = Corpus(
            self.tokenizer, self.arguments.seed + self.step, self.arguments.batch_tokens, 640
        )
        before, saved, tokens, average = time.monotonic(), self.seconds, 0, 0.0
        for batch in corpus:
            average += 0.02 * (self.learn(batch) - average) if average else self.learn(batch)
            tokens += batch.ids.numel()
            now = time.monotonic()
            self.seconds, before = self.seconds + now - before, now
            if self.step % 50 == 0:
                print(
                    f"step {self.step}  {self.progress:6.1%}  loss {average:.4f}  "
                    f"{tokens / 1e6:.2f}M tokens  {self.seconds:.0f} s",
                    flush=True,
                )
            if self.progress >= 1:
                break
            if self.seconds - saved > CHECKPOINT_SECONDS:
                self.checkpoint()
                saved = self.seconds
        self.checkpoint()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the embedded model from scratch.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--minutes", type=float, default=40.0, help="length of the schedule")
    parser.add_argument("--steps", type=int, default=0, help="length in steps, instead of minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=160, help="width, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    arguments = parser.parse_args()
    if arguments.hidden % 32 or arguments.hidden <= 0:
        parser.error("--hidden must be a positive multiple of 32")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    run = Run(arguments)
    print(f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.2f}M parameters", flush=True)
    run.resume()
    run.train()


if __name__ == "__main__":
    main()
