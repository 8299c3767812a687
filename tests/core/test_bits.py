import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from schn_ray.core.bits import pack, sign, unpack


def test_zero_is_positive() -> None:
    assert sign(torch.tensor([0.0, -0.0, -1e-30, 3])).tolist() == [1, 1, -1, 1]


@given(st.integers(1, 70), st.integers(0, 5))
def test_pack_then_unpack(bits: int, n: int) -> None:
    B = sign(torch.randn(n, bits))
    packed = pack(B)
    assert packed.shape == (n, -(-bits // 8))
    assert np.array_equal(packed, pack(B.numpy()))
    assert np.array_equal(unpack(packed, bits), B.numpy())
    for i, b in itertools.product(range(n), range(bits)):
        assert (packed[i, b // 8] >> (b % 8)) & 1 == (B[i, b] > 0)
    assert np.bitwise_count(packed).sum() == (B > 0).sum()  # padding is 0
