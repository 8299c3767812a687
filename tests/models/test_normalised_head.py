"""A head with batch normalisation, against its definition."""

import torch

from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.build import build_head


def test_bits_are_normalised_over_the_batch_and_later_by_what_was_learned() -> None:
    torch.manual_seed(0)
    head = build_head(HeadSpec(batch_norm=True), 5, 3).double()
    plain = head.head
    F = torch.randn(11, 5, dtype=torch.float64) * 3 + 1
    for _ in range(200):
        h = head.train()(F)
    torch.testing.assert_close(h.mean(dim=0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(
        h.var(dim=0, unbiased=False), torch.ones(3).double(), rtol=1e-4, atol=0
    )
    z = plain(F)
    expected = (z - z.mean(dim=0)) / (z.var(dim=0) + 1e-5).sqrt()
    torch.testing.assert_close(head.eval()(F), expected)


def test_the_description_rebuilds_it() -> None:
    spec = HeadSpec(kind="mlp", hidden=4, batch_norm=True)
    head, again = build_head(spec, 5, 3), build_head(HeadSpec(**spec.model_dump()), 5, 3)
    again.load_state_dict(head.state_dict())
    F = torch.randn(6, 5)
    assert torch.equal(head.eval()(F), again.eval()(F))
