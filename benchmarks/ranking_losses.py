"""Losses on equal terms: python benchmarks/ranking_losses.py DATA [--seeds 3] [--epochs 10]

DATA is a folder of `dynasor rank build-data`; its first turns count. Every loss trains the same head on
the same features of the frozen backbone, with the same lists, steps, learning rate and seeds; after each
epoch tau is taken on the held-out split, and the best weights judge the test split once. The score of a
classification is the bucket to be expected, as in `dynasor rank train`, or the likeliest one. As the
backbone runs over each prompt only once, all losses take minutes. Prints Markdown: means over seeds,
with 95% intervals by bootstrap over conversations, those of the queue over its runs. --json FILE keeps
them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynasor.intervals import bootstrap
from dynasor.ranking.backbone import DEFAULT_BACKBONE, load_backbone
from dynasor.ranking.build_data import read_split
from dynasor.ranking.encoder import EncoderSettings, LengthEncoder
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.losses import LOSSES, Lengths, make_loss, outputs_of, read_scores
from dynasor.ranking.metrics import Floats, kendall_tau, ndcg
from dynasor.ranking.prompt_window import PromptWindow, collate
from dynasor.ranking.queue_simulation import FCFS, ORACLE, Traffic, compare_orders
from dynasor.ranking.resampling import interval, resample

AGAINST = "classification"
LIKELIEST = "classification, likeliest bucket"
LIST_SIZE, RATE, WEIGHT_DECAY = 32, 1e-3, 0.01
BATCH = 64


class Seen(NamedTuple):
    """Prompts as a head sees them: (n, features) and what there is to learn of their lengths."""

    features: Tensor
    log_tokens: Tensor
    cut: Tensor

    def tau(self, scores: Floats) -> float:
        return kendall_tau(scores, self.log_tokens.double().numpy(), self.cut.numpy())


@torch.no_grad()
def look_at(model: LengthEncoder, window: PromptWindow, examples: Sequence[LengthExample]) -> Seen:
    windows = window.cut([example.prompt for example in examples])
    order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
    parts = [order[k : k + BATCH] for k in range(0, len(order), BATCH)]
    found = torch.cat(
        [model.features(collate([windows[place] for place in part])) for part in parts]
    )
    return Seen(
        found[torch.argsort(torch.tensor(order))].clone(),
        torch.tensor([np.log(example.tokens) for example in examples], dtype=torch.float32),
        torch.tensor([example.cut > 0 for example in examples]),
    )


def read(outputs: Tensor, name: str) -> Floats:
    """Scores out of what the head gives."""
    scores = outputs.argmax(-1) if name == LIKELIEST else read_scores(outputs)
    return scores.double().numpy()


def train(model: LengthEncoder, name: str, data: tuple[Seen, Seen, Seen], epochs: int) -> Floats:
    """Scores of the test split by the weights that were best on the held-out split."""
    learned, held_out, test = data
    loss = make_loss(name.split(",")[0], learned.log_tokens)
    parameters = [*model.mix.parameters(), *model.out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(learned.cut) // LIST_SIZE)
    rates = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    best, scores = -1.0, np.zeros(len(test.cut))
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(learned.cut))
        for places in order.split(LIST_SIZE)[: steps // epochs]:
            lengths = Lengths(
                learned.log_tokens[places][None],
                learned.cut[places][None],
                torch.ones(1, len(places), dtype=torch.bool),
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss(model.head(learned.features[places])[None], lengths))
            optimizer.step()
            rates.step()
        model.eval()
        with torch.no_grad():
            tau = held_out.tau(read(model.head(held_out.features), name))
            if tau > best:
                best, scores = tau, read(model.head(test.features), name)
    return scores


def summarise(
    scores: dict[str, list[Floats]], test: Seen, examples: Sequence[LengthExample]
) -> list[dict[str, object]]:
    """A row for each loss."""
    tokens = np.array([example.tokens for example in examples])
    cut = test.cut.numpy()
    groups = [example.conversation for example in examples]
    queue = compare_orders(
        {f"{name} {seed}": each for name, own in scores.items() for seed, each in enumerate(own)},
        tokens,
        Traffic(0.9),
        repeats=8,
    )
    gain = queue.results[FCFS].mean - queue.results[ORACLE].mean
    taus = {
        name: resample(
            lambda at, own=own: float(
                np.mean([kendall_tau(each[at], tokens[at], cut[at]) for each in own])
            ),
            groups,
        )
        for name, own in scores.items()
    }
    rows: list[dict[str, object]] = []
    for name, own in scores.items():
        mean = np.mean([queue.results[f"{name} {seed}"].mean for seed in range(len(own))], axis=0)
        saved = queue.results[FCFS].mean - mean
        rows.append(
            {
                "loss": name,
                "tau_by_seed": [kendall_tau(each, tokens, cut) for each in own],
                "tau_interval": interval(taus[name]),
                f"over_{AGAINST}": interval(taus[name] - taus[AGAINST]),
                "ndcg": float(np.mean([ndcg(each, tokens) for each in own])),
                "fcfs_over_it": float(queue.results[FCFS].mean.mean() / mean.mean()),
                "share_of_gain": float(saved.mean() / gain.mean()),
                "share_of_gain_interval": bootstrap(saved, gain),
            }
        )
    return rows


def line(row: dict[str, object]) -> str:
    taus, between = row["tau_by_seed"], row["tau_interval"]
    over, share = row[f"over_{AGAINST}"], row["share_of_gain_interval"]
    return (
        f"| {row['loss']} | {np.mean(taus):.3f} [{between[0]:.3f}, {between[1]:.3f}] "
        f"| {min(taus):.3f} to {max(taus):.3f} | {over[0]:+.3f} to {over[1]:+.3f} "
        f"| {row['ndcg']:.3f} | {row['fcfs_over_it']:.2f} "
        f"| {row['share_of_gain']:.2f} [{share[0]:.2f}, {share[1]:.2f}] |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--loss", action="append", help=f"default: {', '.join(LOSSES)}, {LIKELIEST!r}"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    splits = [
        [example for example in read_split(arguments.data, split) if example.turn == 0]
        for split in ("train", "validation", "test")
    ]
    backbone = load_backbone(DEFAULT_BACKBONE)
    settings = EncoderSettings(window=64)
    window = PromptWindow(backbone.tokenizer, backbone.ends, settings.window)
    frozen = LengthEncoder(backbone, settings).eval()
    learned, held_out, test = (look_at(frozen, window, examples) for examples in splits)
    names = dict.fromkeys([AGAINST, *(arguments.loss or (*LOSSES, LIKELIEST))])
    scores: dict[str, list[Floats]] = {name: [] for name in names}
    for seed in range(arguments.seeds):
        for name in names:
            torch.manual_seed(seed)
            width = outputs_of(AGAINST if name == LIKELIEST else name)
            model = LengthEncoder(backbone, replace(settings, width=width))
            model.centre.copy_(learned.features.mean(0))
            model.scale.copy_(learned.features.std(0) + 1e-3)
            scores[name].append(train(model, name, (learned, held_out, test), arguments.epochs))
    rows = summarise(scores, test, splits[2])
    print(
        f"{' / '.join(f'{len(split):,}' for split in splits)} first turns, {arguments.seeds} seeds, "
        f"{arguments.epochs} epochs\n\n| loss | tau | by seed | tau less that of {AGAINST} | NDCG "
        "| FCFS / it | share of the oracle's gain |\n|" + "---|" * 7
    )
    for row in rows:
        print(line(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
