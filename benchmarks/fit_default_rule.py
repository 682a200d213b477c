"""Fit the default stop rule: python benchmarks/fit_default_rule.py TRACE... [--output FILE].

Each trace is one set: questions with many recorded samples each. Half of its questions (see
`halves.py`; `--half second` takes the other) teach the rule, the other half never does. In each
random order of the samples the rule decides after each sample; with a soft decision, probability
sigmoid(score) to go on, the expected tokens and the expected accuracy of the whole policy are
differentiable, and the weights of the score follow the gradient of

    mean over sets of  ln(tokens) + PRICE * loss,  plus  PULL * |weights - prior|^2

where the prior is the leader-change rule: a set of 15 questions teaches little, so what it does not
teach is left as theory has it. (A network of 8 hidden units in place of the linear score did worse on
held-out halves at every loss.) The loss is in points against the full budget; ln(tokens), since what
counts is the geometric mean over sets: a set of long samples matters no more than one of short ones.
Smaller budgets than the recorded one are mixed in, so that the rule also knows what to do with 8 or
16 samples. At last, for each budget, the score is lowered as far as the mean loss over the tuning
halves allows; a set that gains counts as one that loses nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from halves import tuning_half
from numpy.typing import NDArray

from certaindex.rules.learned import features
from dynasor.replay import RecordedQuery, collect_queries, draw_orders, full_budget
from dynasor.traces import read_traces

PRICE = 0.7  # one point of accuracy is worth a factor exp(PRICE) in tokens
PULL = 0.06  # per squared weight of a standardised feature
STEPS, LEARNING_RATE = 200, 0.05
PRIOR_RISK = 0.1  # probability that the leader changes at which the prior goes on
OVERTAKING = 1  # the feature that the prior looks at: its log-odds, negative
ROWS = 400  # runs of a set in one step, as many of each question
ALLOWED = 0.25  # points that the finished rule may lose on the tuning halves, in the mean
SMALLER_BUDGETS = (8, 16, 32)
SHARE_OF_SMALLER = 0.4  # of the steps


class Runs(NamedTuple):
    """All runs of the tuning half of a set with one budget.

    Attributes:
        inputs: (runs, budget, features) float32, the state after each sample.
        right: (runs, budget) float32, 1 where the leader is the gold answer.
        tokens: (runs, budget) float32, tokens so far over the full budget's mean.
        orders: runs of a question; they are neighbours.
    """

    inputs: torch.Tensor
    right: torch.Tensor
    tokens: torch.Tensor
    orders: int

    def draw(self, random: np.random.Generator) -> torch.Tensor:
        """(rows,) about `ROWS` runs, as many of each question: less noise than any runs."""
        questions = len(self.right) // self.orders
        each = min(self.orders, max(1, ROWS // questions))
        chosen = random.random((questions, self.orders)).argsort(axis=1)[:, :each]
        return torch.from_numpy((chosen + np.arange(questions)[:, None] * self.orders).ravel())


def states(
    query: RecordedQuery, orders: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """(orders, budget, 2) largest two counts, (orders, budget) leader right, tokens so far."""
    rows = np.arange(len(orders))
    groups = np.array([-1 if group is None else group for group in query.groups])[orders]
    counts = np.zeros((len(orders), groups.max() + 3), dtype=np.int64)  # the last takes no answer
    leader = np.full(len(orders), -2)
    two, right = [], []
    for column in groups.T:
        counts[rows, column] += column >= 0
        leader = np.where(
            (column >= 0) & (counts[rows, column] > counts[rows, leader]), column, leader
        )
        two.append(np.sort(counts, axis=1)[:, :-3:-1])
        right.append(leader == (-3 if query.gold is None else query.gold))
    tokens = np.cumsum(np.array(query.tokens, dtype=np.float64)[orders], axis=1)
    return np.stack(two, axis=1), np.stack(right, axis=1).astype(np.float64), tokens


def inputs_of(two: NDArray[np.int64], budget: int) -> NDArray[np.float32]:
    """(runs, budget, features) from the two largest counts; each state is computed once."""
    finished = np.broadcast_to(np.arange(1, budget + 1), two.shape[:2])
    keys = np.stack([two[..., 0], two[..., 1], finished], axis=-1).reshape(-1, 3)
    distinct, where = np.unique(keys, axis=0, return_inverse=True)
    rows = [features(int(a), int(b), int(n), budget - int(n)) for a, b, n in distinct]
    return np.array(rows, dtype=np.float32)[where.reshape(-1)].reshape(*two.shape[:2], -1)


def load_set(path: Path, orders: int, half: str) -> dict[int, Runs]:
    """Budget -> runs of one half of the questions, or of all."""
    queries = collect_queries(read_traces(path))
    largest = full_budget(queries, None)
    tuning = tuning_half([query.id for query in queries])
    taken = {q.id for q in queries if half == "all" or (q.id in tuning) == (half == "first")}
    orders *= max(1, min(4, 200 // len(queries)))  # few questions: more orders of each
    parts = [
        states(query, np.array(draw_orders(query, orders, largest, seed=1, index=index)))
        for index, query in enumerate(queries)
        if query.id in taken
    ]
    two, right, tokens = (np.concatenate(part) for part in zip(*parts, strict=True))
    runs = {}
    for budget in {largest, *(b for b in SMALLER_BUDGETS if b < largest)}:
        shares = tokens[:, :budget] / tokens[:, budget - 1].mean()
        runs[budget] = Runs(
            torch.from_numpy(inputs_of(two[:, :budget], budget)),
            torch.from_numpy(right[:, :budget].astype(np.float32)),
            torch.from_numpy(shares.astype(np.float32)),
            orders,
        )
    return runs


def expected(
    scores: torch.Tensor, runs: Runs, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Expected accuracy and tokens where each decision is to go on with probability sigmoid(score)."""
    go_on = torch.sigmoid(scores)
    go_on = torch.cat([go_on[:, :-1], torch.zeros_like(go_on[:, :1])], dim=1)
    reached = torch.cat([torch.ones_like(go_on[:, :1]), go_on[:, :-1]], dim=1).cumprod(dim=1)
    stops = reached * (1 - go_on)
    return (stops * runs.right[rows]).sum(1).mean(), (stops * runs.tokens[rows]).sum(1).mean()


class Score(NamedTuple):
    """(features,) weights of the raw features, and the bias."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weights + self.bias


def fit(sets: list[dict[int, Runs]], seed: int) -> Score:
    """Train the score from the prior on."""
    random = np.random.default_rng(seed)
    mean, scale = standards(sets)
    prior = torch.zeros_like(mean)
    prior[OVERTAKING] = -scale[OVERTAKING]
    threshold = float(np.log(1 / PRIOR_RISK - 1))
    weights = prior.clone().requires_grad_()
    bias = (threshold - mean[OVERTAKING]).clone().requires_grad_()
    adam = torch.optim.Adam([weights, bias], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    for step in range(STEPS):
        objective = torch.zeros(())
        losses = []
        for runs_by_budget in sets:
            *smaller, largest = sorted(runs_by_budget)
            mixed = smaller and random.random() < SHARE_OF_SMALLER
            runs = runs_by_budget[int(random.choice(smaller)) if mixed else largest]
            rows = runs.draw(random)
            scores = (runs.inputs[rows] - mean) / scale @ weights + bias
            accuracy, tokens = expected(scores, runs, rows)
            loss = 100 * (runs.right[rows, -1].mean() - accuracy)
            losses.append(loss.item())
            objective = objective + tokens.log() + PRICE * loss
        objective = objective / len(sets) + PULL * ((weights - prior) ** 2).sum()
        adam.zero_grad()
        objective.backward()
        adam.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: {objective.item():.3f}", np.round(losses, 1))
    raw = weights.detach() / scale
    return Score(raw, bias.detach() - (raw * mean).sum())


def cautions(score: Score, sets: list[dict[int, Runs]]) -> dict[int, float]:
    """For each budget, what is added to the score: the least that loses no more than is allowed.

    Coming from above, so that a lucky low value below an unlucky higher one is not taken.
    """
    chosen = {}
    for budget in sorted({budget for runs in sets for budget in runs}):
        having = [runs[budget] for runs in sets if budget in runs]
        scores = [score(runs.inputs) for runs in having]
        for caution in np.arange(6.0, -6.01, -0.02):
            pairs = zip(scores, having, strict=True)
            lost = [max(0.0, hard_loss(values + caution, runs)) for values, runs in pairs]
            if np.mean(lost) > ALLOWED:
                break
            chosen[budget] = round(float(caution), 2)
    return chosen


def hard_loss(scores: torch.Tensor, runs: Runs) -> float:
    """Points lost against the full budget where a query stops at its first score of at most 0."""
    stops = scores <= 0
    stops[:, -1] = True
    first = stops.to(torch.int8).argmax(dim=1, keepdim=True)
    return 100 * float((runs.right[:, -1:] - runs.right.gather(1, first)).mean())


def standards(sets: list[dict[int, Runs]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale of each feature over the states of all sets' largest budgets."""
    rows = torch.cat([runs[max(runs)].inputs[::17].flatten(0, 1) for runs in sets])
    return rows.mean(dim=0), rows.std(dim=0) + 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE")
    parser.add_argument("--half", choices=["first", "second"], default="first")
    parser.add_argument("--whole", nargs="*", type=Path, default=[], metavar="TRACE",
                        help="more traces, of which no half measures anything")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("certaindex/rules/learned.json"))
    parser.add_argument("--orders", type=int, default=24, help="random orders a question")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [load_set(path, options.orders, options.half) for path in options.traces]
    sets += [load_set(path, options.orders, "all") for path in options.whole]
    score = fit(sets, options.seed)
    caution = cautions(score, sets)
    tables = {
        "weights": [round(weight, 5) for weight in score.weights.tolist()],
        "bias": round(score.bias.item(), 5),
        "budgets": list(caution),
        "cautions": list(caution.values()),
    }
    print(tables)
    options.output.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
