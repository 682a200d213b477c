import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynasor.errors import ConfigError
from dynasor.ranking.losses import LOSSES, MARGIN, Lengths, make_loss, read_scores

TRAINING = torch.linspace(0, 7, 200)


def lists(seed: int, *, count: int = 3, items: int = 6, values: int = 4) -> Lengths:
    """Ragged lists with many ties and cut answers."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, values + 1, (count, items), generator=draw).double().log() * 3
    cut = torch.rand(count, items, generator=draw) < 0.3
    sizes = torch.randint(0, items + 1, (count, 1), generator=draw)
    return Lengths(tokens, cut, torch.arange(items) < sizes)


def outputs(seed: int, lengths: Lengths, width: int, scale: float = 1.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed + 1)
    shape = (*lengths.log_tokens.shape, width)
    return (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).requires_grad_()


def known_longer(i: tuple[float, bool], j: tuple[float, bool]) -> bool:
    """Whether the second answer is known to be longer than the first."""
    return not i[1] and (j[0] > i[0] or (j[0] == i[0] and j[1]))


def plain(name: str, out: torch.Tensor, lengths: Lengths) -> float:
    """The same losses by loops over numbers."""
    terms: list[float] = []
    log_tokens = TRAINING.double()
    for row in range(len(out)):
        items = [
            (float(lengths.log_tokens[row, k]), bool(lengths.cut[row, k]), out[row, k].tolist())
            for k in range(out.shape[1])
            if lengths.mask[row, k]
        ]
        for tokens, cut, numbers in items:
            if name == "listmle" and not cut:
                rest = [o[2][0] for o in items if known_longer((tokens, cut), o[:2])]
                odds = math.exp(-numbers[0])
                terms.append(-math.log(odds / (odds + sum(math.exp(-score) for score in rest))))
            if name == "regression":
                miss = (tokens - float(log_tokens.mean())) / float(log_tokens.std(correction=0))
                miss -= numbers[0]
                miss = max(0.0, miss) if cut else miss
                terms.append(miss**2 / 2 if abs(miss) <= 1 else abs(miss) - 0.5)
            if name == "classification":
                edges = torch.quantile(log_tokens, torch.arange(1, 10).double() / 10).tolist()
                bucket = sum(tokens >= edge for edge in edges)
                weights = [math.exp(number) for number in numbers]
                likely = sum(weights[bucket:]) if cut else weights[bucket]
                terms.append(-math.log(likely / sum(weights)))
        for first, second in itertools.permutations(items, 2):
            if known_longer(first[:2], second[:2]):
                lead = second[2][0] - first[2][0]
                if name == "ranknet":
                    terms.append(math.log1p(math.exp(-lead)))
                if name == "margin":
                    terms.append(max(0.0, MARGIN - lead))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_loss_is_that_of_plain_loops(name: str, seed: int) -> None:
    loss, lengths = make_loss(name, TRAINING), lists(seed)
    out = outputs(seed, lengths, loss.width)
    with torch.no_grad():
        value = float(loss(out, lengths))
    assert value == pytest.approx(plain(name, out, lengths), abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_gradients_are_those_of_finite_differences(name: str, seed: int) -> None:
    loss, lengths = make_loss(name, TRAINING), lists(seed, count=2, items=3)
    out = outputs(seed, lengths, loss.width)
    assert torch.autograd.gradcheck(lambda x: loss(x, lengths), (out,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_and_the_order_of_items_change_nothing(name: str) -> None:
    loss, lengths = make_loss(name, TRAINING), lists(3)
    out = outputs(3, lengths, loss.width).detach()
    other = torch.where(lengths.mask[..., None], out, 1e4).requires_grad_()
    value = loss(other, lengths)
    torch.autograd.backward(value)
    assert other.grad is not None
    assert not other.grad[~lengths.mask].any()
    assert float(value.detach()) == pytest.approx(float(loss(out, lengths)))
    shuffled = torch.randperm(lengths.mask.shape[1])
    turned = Lengths(*(field[:, shuffled] for field in lengths))
    assert float(loss(out[:, shuffled], turned)) == pytest.approx(float(loss(out, lengths)))


@pytest.mark.parametrize("name", LOSSES)
def test_enormous_scores_in_float32_stay_finite(name: str) -> None:
    loss, lengths = make_loss(name, TRAINING), lists(5, items=40, values=30)
    out = outputs(5, lengths, loss.width, scale=1e6).detach().float().requires_grad_()
    value = loss(out, lengths)
    torch.autograd.backward(value)
    assert value.isfinite()
    assert out.grad is not None
    assert out.grad.isfinite().all()


@pytest.mark.parametrize("name", ["listmle", "ranknet", "margin"])
@pytest.mark.parametrize("cut", [False, True])
def test_nothing_known_teaches_nothing(name: str, cut: bool) -> None:
    # All equal, or all cut at different bounds: there is no order to learn.
    tokens = torch.arange(5.0).expand(1, 5) if cut else torch.ones(1, 5)
    lengths = Lengths(tokens, torch.full((1, 5), cut), torch.ones(1, 5, dtype=torch.bool))
    out = torch.randn(1, 5, 1, requires_grad=True)
    torch.autograd.backward(make_loss(name, TRAINING)(out, lengths))
    assert out.grad is not None
    assert not out.grad.any()


def test_a_cut_answer_pushes_only_those_that_finished_before_its_bound() -> None:
    lengths = Lengths(
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[False, True, False]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    out = torch.zeros(1, 3, 1, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(make_loss("ranknet", TRAINING)(out, lengths))
    assert out.grad is not None
    # Known pairs: 0 < 1 (cut) and 0 < 2; between the cut one and the longest nothing is known.
    assert out.grad.flatten().tolist() == pytest.approx([0.5, -0.25, -0.25])


@pytest.mark.parametrize("name", LOSSES)
def test_descent_finds_the_order(name: str) -> None:
    loss = make_loss(name, TRAINING)
    tokens = torch.tensor([[3.0, 1.0, 6.5, 5.0, 2.0]])
    lengths = Lengths(tokens, tokens > 6, torch.ones_like(tokens, dtype=torch.bool))
    out = torch.zeros(1, 5, loss.width, requires_grad=True)
    optimizer = torch.optim.Adam([out], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(loss(out, lengths))
        optimizer.step()
    assert read_scores(out)[0].argsort().tolist() == tokens[0].argsort().tolist()


def test_an_unknown_loss_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="listmle"):
        make_loss("hinge", TRAINING)
