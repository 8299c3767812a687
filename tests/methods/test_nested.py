"""Nested codes: the loss over prefixes, codes whose first bits are codes, runs that go on."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from support.loss_problem import WIDTH, labels_of
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.data.labels import label_sets
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Problem,
    Step,
    weighted,
)
from schn_ray.methods.centres import (
    class_centres,
    least_distance,
    nested_codes,
)
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.schn.method import Schn
from schn_ray.methods.nested import Nested, NestedNetwork
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.models.config import HeadConfig
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head
from schn_ray.models.precision import Precision
from schn_ray.training.config import train_config

LENGTHS = (4, 6, 12)
BITS = LENGTHS[-1]
ROWS = 14
DEEP = [name for name in METHODS if not find_method(name).not_nested]
APART = [name for name in DEEP if not getattr(find_method(name), "one_network", False)]
SETTINGS: dict[str, dict[str, Any]] = {"dcdh": {"dropout": 0}, "tsdh": {}}


class OneStep:
    """Runs no optimiser: keeps the loss of a step on given outputs of the encoder."""

    def __init__(self, F: Tensor, h: Tensor) -> None:
        self.F, self.h = F, h
        self.losses: dict[str, Tensor] = {}

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.F, self.h

    def descend(self, loss: Tensor, name: str = "main") -> None:
        assert name not in self.losses
        self.losses[name] = loss


def problem_of(bits: int, lengths: tuple[int, ...], seed: int, several: bool) -> Problem:
    sets = label_sets(csr_array(labels_of(seed, several)))
    return Problem(
        bits, WIDTH, sets, Workers(), Precision("float32", torch.device("cpu")), seed, lengths
    )


def nested(name: str, seed: int, **settings: Any) -> Any:
    """Return a method of nested codes in float64, with codes to start from."""
    method: Any = find_method(name)
    torch.manual_seed(seed)
    problem = problem_of(BITS, LENGTHS, seed, several=method.labels != "single")
    config = method.Config.model_validate({"name": name, **SETTINGS.get(name, {}), **settings})
    head = build_head(method.choose_head(config, HeadConfig()), WIDTH, BITS)
    kind = NestedNetwork if method.one_network else Nested
    return kind(method, config, problem, Encoder(nn.Linear(WIDTH, WIDTH), head)).double()


def batch_of(method: DeepMethod[Any], codes: CodeTable, views: int) -> tuple[Batch, OneStep]:
    sets = method.problem.label_sets
    rows = np.random.default_rng(1).permutation(ROWS)[:9]
    Y = torch.from_numpy(sets.sets.toarray()[sets.set_of_row[rows]]).double()
    inputs = torch.randn(len(rows), WIDTH, dtype=torch.float64)
    second = inputs if views == 2 else None
    batch = Batch(inputs, torch.from_numpy(rows), Y, codes.read(rows).double(), second=second)
    F, h = (
        torch.randn(views * len(rows), width, dtype=torch.float64, requires_grad=True)
        for width in (WIDTH, BITS)
    )
    return batch, OneStep(F, h)


@pytest.mark.parametrize("name", APART)
def test_the_loss_is_the_mean_of_the_losses_of_methods_of_each_length(name: str) -> None:
    method = nested(name, seed=3)
    codes = CodeTable(ROWS, BITS)
    method.start(codes)
    views = len(find_method(name).views)  # type: ignore[attr-defined]
    batch, training = batch_of(method, codes, views)
    apart: list[Tensor] = []
    for k in LENGTHS:
        # a method that was built for codes of k bits only, with the same proxies and the like
        problem = replace(method.problem, bits=k)
        plain = type(method.longest)(method.config, problem, method.encoder).double()
        table = CodeTable(ROWS, k)
        plain.start(table)
        state = copy.deepcopy(method.members[str(k)].state_dict())
        missing, unexpected = plain.load_state_dict(state, strict=False)
        assert {key.split(".")[0] for key in missing} <= {"encoder"}
        assert not unexpected
        of_views = zip(training.F.chunk(views), training.h[:, :k].chunk(views), strict=True)
        out = [Outputs(*of_view) for of_view in of_views]
        B = table.read(batch.rows).double()
        of_length = Batch(batch.inputs, batch.rows, batch.Y, B, second=batch.second)
        whole = out[0]._replace(second=out[1]) if views == 2 else out[0]
        apart.append(weighted(plain.losses(whole, of_length), method.config))
    step = method.step(batch, training)
    total = torch.stack(apart).mean()
    require_descended(step, training, total, method.config, rtol=1e-12)


def require_descended(
    step: Step, training: OneStep, total: Tensor, config: MethodConfig, rtol: float
) -> None:
    """Require that a step descended a loss: its value, its gradient, the terms that it returned."""
    descended = training.losses["main"]
    torch.testing.assert_close(descended, total, rtol=rtol, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(descended, training.h)[0],
        torch.autograd.grad(total, training.h)[0],
        rtol=1e-10,
        atol=1e-12,
    )
    assert weighted(step.terms, config).item() == pytest.approx(total.item())


def cut_schn(method: NestedNetwork, bits: int) -> Schn:
    """Return SCHN for k bits, whose output layers are the first k rows of those of all bits."""
    whole = method.longest
    problem = problem_of(bits, (), 3, several=True)
    cut = type(whole)(whole.config, problem, method.encoder).double()
    state = {name: x[:bits] if x.shape[0] == BITS else x for name, x in whole.state_dict().items()}
    missing, unexpected = cut.load_state_dict(state, strict=False)
    assert {key.split(".")[0] for key in missing} <= {"encoder"}
    assert not unexpected
    assert isinstance(cut, Schn)
    return cut


def relaxed_codes() -> dict[str, Tensor]:
    return {name: torch.tanh(torch.randn(ROWS, BITS)) for name in ("U", "U_s", "U_z")}


def codes_of_shorter(method: NestedNetwork) -> dict[int, Tensor]:
    """Return the codes [n, k] of all rows for each shorter length, from a checkpoint."""
    table = CodeTable(ROWS, BITS * (len(LENGTHS) - 1))
    table.load_state_dict(method.get_extra_state())
    columns = table.read(np.arange(ROWS)).split(BITS, dim=1)
    return {k: x[:, :k] for k, x in zip(LENGTHS[:-1], columns, strict=True)}


@pytest.mark.parametrize(("name", "pair"), [("schn", 0), ("schn-plus", 3), ("schn-mmasia", 0)])
def test_schn_of_each_length_has_the_first_outputs_of_the_same_networks(
    name: str, pair: float
) -> None:
    small = {"semantic_dim": 8, "latent_dim": 9, "latent_dropout": 0, "adversarial": 0}
    method = nested(name, 3, **small, pair=pair, latent_activation="tanh", label_graph="mean")
    codes, rows = CodeTable(ROWS, BITS), torch.arange(ROWS)
    method.start(codes)
    codes.write(rows, method.update(rows, codes.read(rows), relaxed_codes()))
    of_length = codes_of_shorter(method) | {BITS: codes.read(rows)}
    assert not torch.equal(of_length[BITS][:, :4], of_length[4])  # each length has its own
    batch, training = batch_of(method, codes, views=1)
    step = method.step(batch, training)
    total = torch.zeros((), dtype=torch.float64)
    for k in LENGTHS:
        cut = cut_schn(method, k)
        alone = OneStep(training.F, training.h[:, :k])
        B = of_length[k][batch.rows].double()
        cut.step(Batch(batch.inputs, batch.rows, batch.Y, B), alone)
        total = total + alone.losses["main"] / len(LENGTHS)
    require_descended(step, training, total, method.config, rtol=1e-10)


def test_the_codes_of_each_length_are_solved_by_themselves() -> None:
    method = nested("schn-plus", 3, semantic_dim=8, latent_dim=9, adversarial=0)
    codes, rows = CodeTable(ROWS, BITS), torch.arange(ROWS)
    U = {name: 10 * x for name, x in relaxed_codes().items()}  # the bits before matter more
    method.start(codes)
    codes.write(rows, method.update(rows, codes.read(rows), relaxed_codes()))
    before = codes_of_shorter(method) | {BITS: codes.read(rows)}  # each length has its own
    solved = method.update(rows, before[BITS], U)
    for k, own in (codes_of_shorter(method) | {BITS: solved}).items():
        first = {name: x[:, :k] for name, x in U.items()}
        alone = cut_schn(method, k).update(rows, before[k], first)
        assert alone is not None
        assert torch.equal(own, alone)


def test_one_length_is_nested_in_itself() -> None:
    method: Any = find_method("schn-plus")
    config = method.Config(name="schn-plus", semantic_dim=8, latent_dim=9)
    encoder = Encoder(nn.Identity(), nn.Linear(WIDTH, BITS))
    problem = problem_of(BITS, (BITS,), 3, several=True)
    one = NestedNetwork(method, config, problem, encoder)
    codes, rows, U = CodeTable(ROWS, BITS), torch.arange(ROWS), relaxed_codes()
    one.start(codes)
    before = codes.read(rows)
    solved, expected = one.update(rows, before, U), one.longest.update(rows, before, U)
    assert solved is not None
    assert expected is not None
    assert torch.equal(solved, expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("classes", "least"), [(10, [6, 10, 15, 22, 32]), (100, [5, 8, 12, 20, 31])]
)
def test_centres_are_far_apart_at_every_length(classes: int, least: list[int], seed: int) -> None:
    lengths = (16, 24, 32, 48, 64)
    alone = class_centres(classes, 64, seed)
    codes = nested_codes(lambda bits, seed: class_centres(classes, bits, seed), lengths, seed)
    columns = sorted(map(tuple, codes.T.tolist()))
    assert columns == sorted(map(tuple, alone.T.tolist()))  # of 64 bits, it is the very draw
    distances = [least_distance(codes[:, :k]) for k in lengths]
    assert all(d >= n for d, n in zip(distances, least, strict=True)), distances
    # the first bits as they happen to lie are nearer, at some length
    assert any(least_distance(alone[:, :k]) < d for k, d in zip(lengths, distances, strict=True))


def test_lengths_below_those_that_tell_all_classes_apart_are_refused() -> None:
    draw = lambda bits, seed: class_centres(40, bits, seed)  # noqa: E731
    assert len(torch.unique(nested_codes(draw, (8, 10), 0)[:, :8], dim=0)) == 40
    with pytest.raises(SchnRayError, match="40 classes can't each have a centre of 4 bits"):
        nested_codes(draw, (4, 10), 0)


@pytest.mark.parametrize("name", ["csq", "orthohash", "mdsh", "crh"])
def test_all_lengths_have_the_first_bits_of_the_same_centres(name: str) -> None:
    method = nested(name, seed=3)
    buffer = "words" if name == "crh" else "centres"
    longest = getattr(method.longest, buffer)
    for k in LENGTHS:
        own = getattr(method.members[str(k)], buffer)
        assert torch.equal(own, longest[: len(own), :k])


def test_a_method_of_several_optimisers_is_refused() -> None:
    class Two(find_method("csq")):  # type: ignore[misc]
        def optimised(self) -> dict[str, list[nn.Parameter]]:
            return {"main": [], "judge": []}

    problem = problem_of(BITS, LENGTHS, 0, several=False)
    encoder = Encoder(nn.Identity(), nn.Linear(WIDTH, BITS))
    with pytest.raises(SchnRayError, match=r"csq has no nested codes.*judge"):
        Nested(Two, Two.Config(name="csq"), problem, encoder)


@pytest.mark.parametrize(
    ("method", "lengths", "message"),
    [
        ("itq", "[16, 32]", "itq has no nested codes: it is fitted to features for one length"),
        ("subic", "[16, 32]", "one-hot blocks"),
        ("dpq", "[16, 32]", "numbers of words"),
        ("dsh-gan", "[16, 32]", "images that are made for codes of one length"),
        ("csq", "[32, 16]", "ascend"),
        ("csq", "[16, 16]", "ascend"),
        ("csq", "[0, 16]", "ascend"),
    ],
)
def test_settings_refuse_what_cannot_be_nested(method: str, lengths: str, message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        train_config(settings=(f"nested={lengths}",), method=method)


def test_bits_are_the_last_length() -> None:
    assert train_config("frozen", settings=("nested=[16, 48]",), method="csq").bits == 48
    with pytest.raises(SchnRayError, match=r"^bits=32 .*expected bits=48, the last length"):
        train_config(settings=("nested=[16, 48]", "bits=32"), method="csq")
    assert "nested" not in train_config(method="csq").recorded()
