"""SCHN and collectives on two real processes compute what one process computes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.gloo import run_on_workers
from support.schn_problem import ROWS, make_batch, make_schn
from torch import Tensor
from torchvision.ops import StochasticDepth

from schn_ray.core.workers import Workers
from schn_ray.methods.base import Batch
from schn_ray.models import parallel
from schn_ray.models.global_dropout import share_dropout
from schn_ray.models.parallel import data_parallel

STEPS = 3


def own_part(batch: Batch, workers: Workers) -> Batch:
    own = workers.own(len(batch.Y))
    return replace(batch, inputs=batch.inputs[own], workers=workers)


def train_steps(workers: Workers) -> dict[str, Any]:
    parallel._LARGE = 100  # so that the image network has layers of both kinds
    trainer = make_schn(workers=workers, label_graph="mean", latent_dropout=0.5)
    terms = []
    for seed in range(STEPS):
        step = trainer.step(own_part(make_batch(seed), workers))
        share = workers.share(ROWS) / workers.size
        terms.append(workers.sum(torch.stack([t * share for t in step.terms.values()])))
    rows = torch.arange(ROWS)[workers.own(ROWS)]
    B = make_batch(9).B[workers.own(ROWS)]
    solved = trainer.method.update(rows, B.float(), step.outputs)
    assert solved is not None
    state = {k: v.detach().clone() for k, v in trainer.method.state_dict().items()}
    return {"terms": torch.stack(terms), "state": state, "codes": workers.gather_any(solved)}


def two_separate_batches(workers: Workers) -> Tensor:
    """The mistake that the gather is there to prevent: each worker's pairs from its own rows."""
    alone = make_schn(label_graph="mean", latent_dropout=0.5)
    batch = make_batch(0)
    own = workers.own(ROWS)
    step = alone.step(Batch(batch.inputs[own], batch.rows[own], batch.Y[own], batch.B[own]))
    terms = torch.stack(list(step.terms.values())) * workers.share(ROWS) / workers.size
    return workers.sum(terms)


def normalised(workers: Workers) -> dict[str, Any]:
    torch.manual_seed(0)
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    torch.nn.init.normal_(norm[0].weight)
    x = torch.randn(ROWS, 3, 4, 4, dtype=torch.float64)[workers.own(ROWS)].requires_grad_()
    weights = torch.randn(ROWS, 3, 4, 4, dtype=torch.float64)[workers.own(ROWS)]
    y = data_parallel(norm, workers)(x)
    (y * weights).sum().backward()
    return {"y": y.detach(), "gradient": x.grad, "state": norm.state_dict()}


def collectives(workers: Workers) -> dict[str, Tensor]:
    x = torch.arange(ROWS * 2.0).reshape(ROWS, 2)[workers.own(ROWS)].requires_grad_()
    gathered = workers.gather(ROWS)(x)
    # each worker weighs all rows by another number: a row's gradient is the sum of these
    (gathered.sum() * (workers.rank + 1)).backward()
    uneven = workers.gather_any(torch.full((workers.rank * 2,), float(workers.rank)))
    assert x.grad is not None
    return {"gathered": gathered.detach(), "gradient": x.grad, "uneven": uneven}


class TheirDropPath(torch.nn.Module):
    """Drops whole rows, as the layers of timm and transformers do."""

    drop_prob = 0.4

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        each = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x / (1 - self.drop_prob) * each


def dropped(workers: Workers) -> Tensor:
    network = torch.nn.Sequential(
        torch.nn.Dropout(0.3), torch.nn.Dropout2d(0.4), StochasticDepth(0.5, "row"), TheirDropPath()
    )
    layers = share_dropout(network, workers)
    torch.manual_seed(5)
    for layer in layers:
        layer.rows = ROWS
    x = torch.arange(ROWS * 24.0).reshape(ROWS, 3, 4, 2)[workers.own(ROWS)]
    across = x.contiguous(memory_format=torch.channels_last)  # as images are
    results = [network.train()(x), network.train()(x), network.train()(across), network.eval()(x)]
    return torch.stack(results)


def everything(workers: Workers) -> dict[str, Any]:
    # in one pair of processes: to start one takes longer than all of this
    return {
        "steps": train_steps(workers),
        "separate": two_separate_batches(workers),
        "collectives": collectives(workers),
        "normalised": normalised(workers),
        "dropped": dropped(workers),
    }


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_on_workers(everything, tmp_path_factory.mktemp("workers") / "two")


def test_two_workers_compute_what_one_does(together: list[dict[str, Any]]) -> None:
    alone = train_steps(Workers())  # 7 rows on 2 workers: 4 and 3
    for worker in (each["steps"] for each in together):
        torch.testing.assert_close(worker["terms"], alone["terms"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(worker["state"], alone["state"], rtol=1e-8, atol=1e-9)
        assert torch.equal(worker["codes"], alone["codes"])


def test_control_two_separate_batches_differ(together: list[dict[str, Any]]) -> None:
    first_step = together[0]["steps"]["terms"][0]
    assert not torch.allclose(together[0]["separate"], first_step, rtol=1e-3)


def test_gather_sums_the_gradients_of_all_workers(together: list[dict[str, Any]]) -> None:
    first, second = (each["collectives"] for each in together)
    assert torch.equal(first["gathered"], torch.arange(ROWS * 2.0).reshape(ROWS, 2))
    assert torch.equal(first["gathered"], second["gathered"])
    assert torch.equal(first["gradient"], torch.full((4, 2), 3.0))
    assert torch.equal(second["gradient"], torch.full((3, 2), 3.0))
    assert torch.equal(first["uneven"], torch.tensor([1.0, 1.0]))


def test_batch_normalisation_is_over_the_global_batch(together: list[dict[str, Any]]) -> None:
    workers = [each["normalised"] for each in together]
    alone = normalised(Workers())
    for name in ("y", "gradient"):
        joined = torch.cat([worker[name] for worker in workers])
        torch.testing.assert_close(joined, alone[name], rtol=1e-10, atol=1e-12)
    for worker in workers:
        torch.testing.assert_close(worker["state"], alone["state"], rtol=1e-10, atol=1e-12)


def test_batch_normalisation_is_torch_s_own() -> None:
    ours = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    theirs = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
    ours = data_parallel(ours, Workers())
    for seed in range(3):
        x = torch.randn(ROWS, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).double()
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)
    assert type(ours[0]) is not type(theirs[0])
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-12)


def test_dropout_is_drawn_for_the_global_batch(together: list[dict[str, Any]]) -> None:
    alone = dropped(Workers())
    assert 0 < (alone[0] == 0).double().mean() < 1
    assert not torch.equal(alone[0], alone[1])
    joined = torch.cat([each["dropped"] for each in together], dim=1)
    torch.testing.assert_close(joined, alone, rtol=1e-6, atol=0)


def test_slices_cover_the_batch_and_shares_average_to_its_mean() -> None:
    values = torch.randn(11)
    parts = [Workers(rank, 4) for rank in range(4)]
    assert torch.equal(torch.cat([values[w.own(11)] for w in parts]), values)
    mean = sum(float(values[w.own(11)].mean()) * w.share(11) for w in parts) / 4
    assert mean == pytest.approx(float(values.mean()))
