"""DPQ against its equations, word by word; its codebooks; its scores against distances."""

import itertools

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, class_loss, make_case
from torch import Tensor

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.deep.dpq import Dpq, residual_words
from schn_ray.models.config import HeadConfig
from schn_ray.models.heads.build import build_head
from schn_ray.models.heads.words import WordsHead


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def problem(seed: int, several: bool = True) -> Case:
    """Return a case whose words are as long as what they stand for."""
    case = make_case(Dpq, seed, several, width=7)
    with torch.no_grad():
        case.method.codebooks.normal_()
    return case


def literal(case: Case) -> dict[str, Tensor]:
    X, Y, E, v = case.h, case.batch.Y, case.method.codebooks, case.method.class_vectors
    N, D = X.shape
    margin = 0 * X.sum()
    for x, y in zip(X, Y, strict=True):
        for c, j in itertools.product(range(len(v)), repeat=2):
            if y[c] and not y[j]:
                apart = 1 - cosine(v[c], v[j])
                margin = margin + (apart - cosine(v[c], x) + cosine(v[j], x)).clamp(min=0)
    soft_loss, hard_loss, joint = 0, 0, 0
    for x in X.detach():
        left, soft, hard = x, torch.zeros(D), torch.zeros(D)
        for words in E:
            scores = [(left * e).sum() - (e * e).sum() / 2 for e in words]
            powers = [torch.exp(s) for s in scores]
            soft = soft + sum(p / sum(powers) * e for p, e in zip(powers, words, strict=True))
            nearest = min(words, key=lambda e: float(((left - e) ** 2).sum().detach()))
            hard, left = hard + nearest, left - nearest
            soft_loss = soft_loss + ((x - soft) ** 2).sum() / (N * D)
            hard_loss = hard_loss + ((x - hard) ** 2).sum() / (N * D)
        joint = joint + ((soft - hard) ** 2).sum() / (N * D)
    return {
        "classification": class_loss(case.F, case.method.classifier.linear, case),
        "margin": margin / (len(v) * Y.sum()),
        "soft": soft_loss,
        "hard": hard_loss,
        "joint": joint,
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(problem(seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(problem(0))


def filled_head(case: Case) -> WordsHead:
    """Return the released head, with the case's codebooks."""
    head: WordsHead = case.method.encoder.head.eval()
    head.words.copy_(case.method.codebooks.detach())
    return head


def test_codes_while_training_are_those_of_the_released_head() -> None:
    case = problem(0)
    head, F = filled_head(case), case.F.detach()
    codes = case.method.relaxed(head.train()(F))
    assert torch.equal(codes, head.eval()(F).sign())
    assert (codes == 1).sum(dim=1).tolist() == [2] * len(F)


def test_scores_of_rows_that_differ_in_the_last_word_are_distances() -> None:
    case = problem(1)
    head, F = filled_head(case), case.F.detach()
    for h, x in zip(head(F), torch.tanh(head.linear(F)), strict=True):
        first = head.words[0, int(h[:4].argmax())]
        codes = -torch.ones(4, 8, dtype=torch.float64)
        codes[:, int(h[:4].argmax())] = 1
        codes[range(4), range(4, 8)] = 1
        away = torch.stack([((x - first - last) ** 2).sum() for last in head.words[1]])
        scores = codes @ h / 2
        torch.testing.assert_close(scores - scores[0], (away[0] - away) / 2)


def test_codebooks_of_k_means_leave_less_with_each_word() -> None:
    torch.manual_seed(0)
    X = torch.randn(200, 5, dtype=torch.float64)
    E = residual_words(X, 4, 4, seed=0)
    left, lengths = X, [float(X.square().mean())]
    for words in E:
        nearest = torch.cdist(left, words).argmin(dim=1)
        for k in range(4):  # a mean of what it stands for, but for the last sweep of k-means
            torch.testing.assert_close(words[k], left[nearest == k].mean(dim=0), rtol=0, atol=0.1)
        left = left - words[nearest]
        lengths.append(float(left.square().mean()))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.3 * lengths[0]


def test_with_fewer_rows_than_words_rows_are_words() -> None:
    torch.manual_seed(0)
    X = torch.randn(3, 5, dtype=torch.float64)
    words = residual_words(X, 1, 64, seed=0)[0]
    assert torch.cdist(X, words).min(dim=1).values.max() < 1e-6


def test_codebooks_start_at_the_first_update_and_the_head_gets_them() -> None:
    case = make_case(Dpq, 0, width=7)
    method, rows = case.method, case.batch.rows
    outputs = {"X": case.h.detach()}
    method.update(rows, case.batch.B, outputs)
    expected = residual_words(case.h.detach()[rows.argsort()], 2, 4, seed=0)
    assert torch.equal(method.codebooks, expected)
    with torch.no_grad():
        method.codebooks.add_(1)
    method.update(rows, case.batch.B, outputs)
    assert torch.equal(method.encoder.head.words, expected + 1)


def test_bits_that_do_not_divide_are_refused() -> None:
    spec = Dpq.choose_head(Dpq.Config(block=3), HeadConfig())
    with pytest.raises(SchnRayError, match="do not divide"):
        build_head(spec, 6, 8)
