import copy
import math
from collections.abc import Callable

import pytest
import torch
from support.schn_problem import BITS, CLASSES, ROWS, make_batch, make_schn, schn_of
from torch import Tensor, nn

from schn_ray.methods.base import Batch, weighted
from schn_ray.methods.deep.schn.code_update import update_codes
from schn_ray.methods.deep.schn.latent import BatchFeatures, LatentNetwork
from schn_ray.methods.deep.schn.lengths import OneLength
from schn_ray.methods.trainer import Trainer

ALL_TERMS = {
    "hash_image",
    "hash_semantic",
    "hash_latent",
    "cycle_image",
    "cycle_semantic",
    "discriminator",
    "adversarial",
}
OFF = {name: 0.0 for name in ALL_TERMS - {"discriminator"}}


def test_each_part_of_the_step_moves_only_what_it_may() -> None:
    trainer = make_schn()
    schn = schn_of(trainer)
    moved: dict[str, set[str]] = {}
    before: dict[str, Tensor] = {}

    def remember(*_: object) -> None:
        before.update({k: v.detach().clone() for k, v in schn.named_parameters()})

    def compare(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            now = schn.named_parameters()
            moved[name] = {k.split(".")[0] for k, v in now if not torch.equal(v, before[k])}

        return hook

    for name, optimiser in trainer.optimisers.items():
        optimiser.register_step_pre_hook(remember)
        optimiser.register_step_post_hook(compare(name))
    trainer.step(make_batch())
    assert moved == {
        "main": {"encoder", "semantic", "latent", "cycle"},
        "discriminators": {"discriminators"},
        "generators": {"latent", "cycle"},
    }


def test_only_the_image_network_has_gradients_that_factors_do_not_give() -> None:
    """Others are averaged by their linear layers' factors: any other layer would go its own way."""
    for name, network in schn_of(make_schn()).named_children():
        linear = {id(p) for m in network.modules() if type(m) is nn.Linear for p in m.parameters()}
        others = [k for k, p in network.named_parameters() if id(p) not in linear]
        assert bool(others) == (name == "encoder"), others


@pytest.mark.parametrize("term", ["hash_latent", "cycle_semantic", "hash_semantic"])
def test_no_gradient_of_the_latent_side_reaches_the_backbone(term: str) -> None:
    assert gradient_of_image_network(term) == 0


@pytest.mark.parametrize("term", ["hash_image", "cycle_image"])
def test_control_terms_of_the_image_code_do_reach_the_backbone(term: str) -> None:
    assert gradient_of_image_network(term) > 0


def gradient_of_image_network(term: str) -> float:
    trainer = make_schn(**OFF | {term: 1.0})
    schn, batch = schn_of(trainer), make_batch()
    terms = schn._code_terms(schn._forward(batch, trainer), batch, OneLength(batch.B, batch.own))
    weighted(terms, schn.config).backward()
    return sum(float(p.grad.abs().sum()) for p in schn.encoder.parameters() if p.grad is not None)


def test_terms_equal_a_slow_literal_version() -> None:
    trainer, batch = make_schn(quantization=3.0), make_batch()
    schn = schn_of(trainer)
    out = schn._forward(batch, trainer)
    terms = schn._code_terms(out, batch, OneLength(batch.B, batch.own))
    assert out.U_s is not None
    assert out.latent is not None
    _, U_z, R_v, R_s = out.latent
    for name, U in [("hash_image", out.U_v), ("hash_semantic", out.U_s), ("hash_latent", U_z)]:
        assert terms[name].item() == pytest.approx(literal_hash(U, batch, 0.0, 3.0), rel=1e-12)
    for name, R, U in [
        ("cycle_image", R_v, out.U_v),
        ("cycle_semantic", R_s, out.U_s),
    ]:
        assert terms[name].item() == pytest.approx(literal_mean_square(R, U), rel=1e-12)


@pytest.mark.parametrize(
    ("terms", "networks"),
    [
        ({"hash_image"}, set()),
        ({"hash_image", "hash_semantic"}, {"semantic"}),
        ({"hash_image", "cycle_image"}, {"semantic", "latent", "cycle"}),
    ],
)
def test_networks_without_a_term_are_left_out_and_the_others_compute_the_same(
    terms: set[str], networks: set[str]
) -> None:
    weights = OFF | dict.fromkeys(terms, 1.0)
    trainer, whole = make_schn(**weights), make_schn(**weights | {"cycle_semantic": 1e-30})
    few, all_of_them = schn_of(trainer), schn_of(whole)
    assert {name for name, _ in few.named_children()} == {"encoder"} | networks
    state = all_of_them.state_dict()
    few.load_state_dict({name: state[name] for name in few.state_dict()})
    batch = make_batch()
    step, expected = trainer.step(batch), whole.step(batch)
    assert terms <= set(step.terms)
    for name in step.terms:
        assert torch.equal(step.terms[name], expected.terms[name]), name
    for ours, theirs in zip(
        few.encoder.parameters(), all_of_them.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_codes_are_solved_from_the_image_codes_alone_where_there_are_no_others() -> None:
    schn = schn_of(make_schn(**OFF | {"hash_image": 1.0}))
    n = schn.problem.rows
    U, B = torch.randn(n, BITS), torch.sign(torch.randn(n, BITS))
    label_sets, none = schn.problem.label_sets, torch.zeros(n, BITS)
    expected = update_codes(
        B, U, none, none, torch.from_numpy(label_sets.set_of_row), label_sets.sets,
        alpha=0.0, beta=0.0, gamma=schn.config.quantization,
    )  # fmt: skip
    solved = schn.update(torch.arange(n), B, {"U": U})
    assert solved is not None
    assert torch.equal(solved, expected)
    assert not torch.equal(solved, B)


def test_the_pair_term_equals_a_slow_literal_version() -> None:
    trainer, batch = make_schn(pair=2.0, pair_scale=7.0), make_batch()
    schn = schn_of(trainer)
    out = schn._forward(batch, trainer)
    sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for i in range(ROWS):
        for j in range(ROWS):
            a, b = ({c for c in range(CLASSES) if batch.Y[row, c]} for row in (i, j))
            theta = 7.0 / BITS * (out.U_v[i] @ out.U_v[j]).item()
            loss = math.log1p(math.exp(theta)) - (theta if a & b else 0.0)
            sums[bool(a & b)] += loss * (len(a & b) / len(a | b) if a & b else 1.0)
            counts[bool(a & b)] += 1
    expected = sums[True] / counts[True] + sums[False] / counts[False]
    terms = schn._code_terms(out, batch, OneLength(batch.B, batch.own))
    assert terms["pair"].item() == pytest.approx(expected, rel=1e-12)
    before = copy.deepcopy(schn.state_dict())
    assert "pair" in trainer.step(batch).terms
    assert not torch.equal(before["encoder.head.linear.weight"], schn.encoder.head.linear.weight)


def test_the_classifier_learns_from_the_features() -> None:
    trainer, batch = make_schn(classifier=2.0), make_batch()
    schn = schn_of(trainer)
    assert schn.classifier is not None
    logits = schn.classifier.linear(schn._forward(batch, trainer).F_v)
    signed = (1 - 2 * batch.Y) * logits  # -log sigmoid(+-x) = log(1 + exp(-+x))
    rows = [row for row in range(ROWS) if batch.Y[row].any()]
    expected = sum(math.log1p(math.exp(x)) for row in rows for x in signed[row].tolist())
    before = copy.deepcopy(schn.state_dict())
    assert trainer.step(batch).terms["classifier"].item() == pytest.approx(expected / len(rows))
    after = schn.state_dict()
    for name in ("classifier.linear.weight", "encoder.backbone.stages.0.weight"):
        assert not torch.equal(before[name], after[name])
    assert make_schn().method.state_dict().keys() < before.keys()


def test_soft_negatives_replace_only_the_zeros() -> None:
    trainer, batch = make_schn(negative_target="soft"), make_batch()
    schn = schn_of(trainer)
    Y = batch.Y
    similar = sum(bool(Y[i] @ Y[j] > 0) for i in range(ROWS) for j in range(ROWS))
    negative = -similar / (ROWS**2 - similar)
    assert schn._negative == pytest.approx(negative, rel=1e-12)
    out = schn._forward(batch, trainer)
    expected = literal_hash(out.U_v, batch, negative, 10.0)
    terms = schn._code_terms(out, batch, OneLength(batch.B, batch.own))
    assert terms["hash_image"].item() == pytest.approx(expected, rel=1e-12)


def literal_hash(U: Tensor, batch: Batch, negative: float, gamma: float) -> float:
    total = 0.0
    for i in range(ROWS):
        for j in range(ROWS):
            T = (
                1.0
                if any(a == b == 1 for a, b in zip(batch.Y[i], batch.Y[j], strict=True))
                else negative
            )
            inner = float(sum(U[i, b].item() * batch.B[j, b].item() for b in range(BITS)))
            total += (BITS * T - inner) ** 2 / ROWS**2
    return 12 / BITS * total + gamma * literal_mean_square(U, batch.B)


def literal_mean_square(X: Tensor, Y: Tensor) -> float:
    pairs = zip(X.flatten().tolist(), Y.flatten().tolist(), strict=True)
    return math.fsum((x - y) ** 2 for x, y in pairs) / X.numel()


def test_a_step_equals_a_literal_one() -> None:
    trainer, batch = make_schn(adversarial=0.5), make_batch()
    literal = copy.deepcopy(trainer)
    step = trainer.step(batch)
    terms = literal_step(literal, batch)
    assert set(step.terms) == ALL_TERMS == set(terms)
    for name in ALL_TERMS:
        assert step.terms[name].item() == pytest.approx(terms[name].item(), rel=1e-10)
    for (name, ours), theirs in zip(
        trainer.method.named_parameters(), literal.method.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9, msg=name)


def literal_step(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
    """Three descents as the method states them, each with a forward pass of its own.

    The features of the second and third are those of the first: the latent network reads them
    as constants of the step.
    """
    nets, optimisers = schn_of(trainer), trainer.optimisers
    A = (batch.Y @ batch.Y.T > 0).double()

    def latent_side(F_v: Tensor, F_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = BatchFeatures(F_v, F_s, A)
        Z, U_z = nets.latent(features, lambda x: x)
        return U_z, *nets.cycle(features, Z, lambda x: x)

    F_v, h = nets.encoder(batch.inputs)
    U_v = torch.tanh(h)
    F_s, U_s = nets.semantic(batch.Y)
    U_z, R_v, R_s = latent_side(F_v.detach(), F_s.detach())

    def hash_term(U: Tensor) -> Tensor:
        pairs = (BITS * A - U @ batch.B.T) ** 2
        return 12 / BITS * pairs.mean() + 10 * ((U - batch.B) ** 2).mean()

    terms = {
        "hash_image": hash_term(U_v),
        "hash_semantic": hash_term(U_s),
        "hash_latent": hash_term(U_z),
        "cycle_image": ((R_v - U_v) ** 2).mean(),
        "cycle_semantic": ((R_s - U_s) ** 2).mean(),
    }
    optimisers["main"].zero_grad()
    sum(terms.values(), start=torch.zeros(())).backward()
    optimisers["main"].step()

    def probability(codes_v: Tensor, codes_s: Tensor) -> Tensor:
        judges = nets.discriminators
        a = torch.cat([judges.image(codes_v), judges.semantic(codes_s)])
        return (torch.tanh(a) + 1) / 2  # as published

    with torch.no_grad():
        _, R_v, R_s = latent_side(F_v, F_s)
    real, fake = probability(U_v.detach(), U_s.detach()), probability(R_v, R_s)
    terms["discriminator"] = -torch.log(real).mean() - torch.log(1 - fake).mean()
    optimisers["discriminators"].zero_grad()
    (0.5 * terms["discriminator"]).backward()
    optimisers["discriminators"].step()

    _, R_v, R_s = latent_side(F_v.detach(), F_s.detach())
    terms["adversarial"] = -torch.log(probability(R_v, R_s)).mean()
    optimisers["generators"].zero_grad()
    (0.5 * terms["adversarial"]).backward()
    optimisers["generators"].step()
    return terms


def test_the_variants_ask_with_what_they_say() -> None:
    """In schn the latent vectors ask features; in schn-mmasia features ask the latent vectors."""
    dims = {"F_v": 64, "F_s": 12, "A": 4, "Z": 16}
    inputs = {name: torch.randn(4, dim, requires_grad=True) for name, dim in dims.items()}
    *features, Z = inputs.values()
    depends = {}
    for variant in ("schn", "schn-mmasia"):
        cycle = schn_of(make_schn(cycle=variant)).cycle.float()
        outputs = cycle(BatchFeatures(*features), Z, lambda x: x)
        for name, R in zip(("R_v", "R_s"), outputs, strict=True):
            gradients = torch.autograd.grad(R.sum(), list(inputs.values()), allow_unused=True)
            reached = {k for k, g in zip(inputs, gradients, strict=True) if g is not None}
            depends[variant, name] = reached
    assert depends == {
        ("schn", "R_v"): {"Z", "F_s"},
        ("schn", "R_s"): {"Z", "F_v"},
        ("schn-mmasia", "R_v"): {"F_s", "Z"},
        ("schn-mmasia", "R_s"): {"F_v", "Z"},
    }


def test_without_an_adversarial_weight_there_are_no_discriminators() -> None:
    trainer = make_schn(adversarial=0, cycle="schn-mmasia")
    assert set(trainer.optimisers) == {"main"}
    assert set(trainer.step(make_batch()).terms) == ALL_TERMS - {"discriminator", "adversarial"}


def test_a_discriminator_answers_the_published_probability() -> None:
    judges = schn_of(make_schn()).discriminators
    assert isinstance(judges, nn.Module)
    codes = torch.randn(9, BITS, dtype=torch.float64)
    published = (torch.tanh(judges.image(codes)) + 1) / 2
    torch.testing.assert_close(torch.sigmoid(judges(codes, codes))[:9], published)


def latent(**options: object) -> LatentNetwork:
    torch.manual_seed(0)
    return LatentNetwork(32, 12, 16, BITS, dropout=0.0, **options)  # type: ignore[arg-type]


def latent_codes(network: LatentNetwork, A: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    F_v, F_s = torch.randn(4, 32), torch.randn(4, 12)
    return network(BatchFeatures(F_v, F_s, A), lambda x: x)


def test_latent_options_change_what_they_name() -> None:
    A = torch.ones(4, 4)
    published = latent_codes(latent(), A)
    assert published[1].min() > 0  # sigmoid codes can't approach a -1 bit
    assert latent_codes(latent(activation="tanh"), A)[1].min() < 0
    mean = latent_codes(latent(mean_over_neighbours=True), A)
    by_hand = latent_codes(latent(), A / 4)
    torch.testing.assert_close(mean[0], by_hand[0])
    assert not torch.allclose(mean[0], published[0])


def test_a_row_without_labels_has_no_neighbour_and_stays_finite() -> None:
    Z, U_z = latent_codes(latent(mean_over_neighbours=True), torch.zeros(4, 4))
    assert torch.isfinite(U_z).all()
    assert torch.equal(Z[0], Z[1])  # only the bias is left


@pytest.mark.parametrize(
    ("iteration", "decays"), [(1, 0), (5, 0), (6, 1), (40, 1), (41, 2), (50, 2)]
)
@pytest.mark.parametrize("which", ["all", "adversarial"])
def test_the_learning_rate_falls_after_the_named_iterations(
    iteration: int, decays: int, which: str
) -> None:
    trainer = make_schn(decay=which, learning_rate=4e-5)
    trainer.set_rates(iteration - 0.5)
    optimisers = trainer.optimisers
    assert all(len({g["lr"] for g in o.param_groups}) == 1 for o in optimisers.values())
    rates = {name: o.param_groups[0]["lr"] for name, o in optimisers.items()}
    decayed = pytest.approx(4e-5 / 5**decays)
    assert rates["discriminators"] == rates["generators"] == decayed
    assert rates["main"] == (decayed if which == "all" else 4e-5)
