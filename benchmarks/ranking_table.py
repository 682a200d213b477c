"""Rankers on held-out prompts, next to each other: python benchmarks/ranking_table.py DATA [options]

DATA is a folder of `dynasor rank build-data`. Learns a ridge regression on TF-IDF of words and
characters from its training split, as a baseline (needs scikit-learn), and judges on the test split:
that baseline, prompt length alone, the cheap ranker, any --model FOLDER, and the oracle, which knows the
lengths. Prints Markdown; --json FILE keeps the figures.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynasor.ranking.build_data import read_split
from dynasor.ranking.evaluate import Evaluation, evaluate, score_all
from dynasor.ranking.examples import LengthExample
from dynasor.ranking.length_quantiles import length_quantiles
from dynasor.ranking.metrics import Floats
from dynasor.ranking.model_folder import load_ranker

BASELINE = "TF-IDF ridge"


def tfidf_ridge(train: Sequence[LengthExample], test: Sequence[LengthExample]) -> dict[str, Floats]:
    """Scores of the test prompts by two baselines: one learns ln(tokens), one quantiles of them."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    pieces = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), min_df=3, sublinear_tf=True, max_features=200_000
    )
    learned = [example.prompt[:2000] for example in train]
    asked = [example.prompt[:2000] for example in test]
    rows = hstack([words.fit_transform(learned), pieces.fit_transform(learned)]).tocsr()
    unseen = hstack([words.transform(asked), pieces.transform(asked)]).tocsr()
    tokens = np.array([example.tokens for example in train])
    cut = np.array([example.cut > 0 for example in train])
    targets = {BASELINE: np.log(tokens), f"{BASELINE}, quantiles": length_quantiles(tokens, cut)}
    return {
        name: np.asarray(Ridge(alpha=3.0).fit(rows, target).predict(unseen))
        for name, target in targets.items()
    }


def of_turns(examples: list[LengthExample], turns: str) -> list[LengthExample]:
    return [each for each in examples if turns == "all" or (each.turn > 0) == (turns == "later")]


def markdown(found: list[Evaluation]) -> str:
    shares = list(found[0].shortest)
    heads = ["ranker", "tau", f"tau over {BASELINE}", "Spearman", "NDCG"]
    heads += [f"shortest {share:.0%} found" for share in shares]
    heads += ["FCFS / it", "it / oracle", "share of the oracle's gain"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in found:
        low, high = row.tau_interval
        change, gain = row.tau_change_interval, row.share_of_gain_interval
        cells = [
            row.model,
            f"{row.tau:.3f} [{low:.3f}, {high:.3f}]",
            "" if change is None else f"{row.tau_change:+.3f} [{change[0]:+.3f}, {change[1]:+.3f}]",
            f"{row.spearman:.3f}",
            f"{row.ndcg:.3f}",
            *(f"{row.shortest[share]:.0%}" for share in shares),
            f"{row.latency_ratio_to_fcfs:.2f}",
            f"{row.latency_ratio_to_oracle:.2f}",
            f"{row.share_of_gain:.2f} [{gain[0]:.2f}, {gain[1]:.2f}]",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[], help="folder of a trained ranker")
    parser.add_argument("--turns", choices=("first", "later", "all"), default="first")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    train = of_turns(read_split(arguments.data, "train"), arguments.turns)
    test = of_turns(read_split(arguments.data, "test"), arguments.turns)
    scores = tfidf_ridge(train, test)
    for name in ("prompt-length", "cheap", *arguments.model):
        scores[name] = score_all(load_ranker(name), test)
    scores["oracle"] = np.array([example.tokens for example in test])
    found = evaluate(scores, test, draws=arguments.draws)
    print(
        f"{arguments.data.name}, {arguments.turns} turns: {len(test):,} held-out prompts, ", end=""
    )
    print(f"{len(train):,} to learn from\n")
    print(markdown(found))
    if arguments.json:
        rows = [row.to_json() for row in found]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
