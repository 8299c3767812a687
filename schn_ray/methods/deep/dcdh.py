"""DCDH: dual-stream networks with solved codes (Wang, Zhang, Luo and Huang, SIGIR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from schn_ray.core.settings import Count, Searched, Share, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
    PublishedFigure,
)
from schn_ray.methods.code_table import CodeTable, initial_codes
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.deep.schn.code_update import pair_counts, update_codes
from schn_ray.methods.losses import focal_loss, hash_loss, target_similarity
from schn_ray.models.encoder import Encoder


class DcdhConfig(MethodConfig):
    """Settings of DCDH.

    Attributes:
        hash_image: weight of the image codes.
        hash_label: weight of the codes of label sets, lambda; published 2 for CIFAR-10, else 0.5.
        hash_fused: weight of the codes of image and labels together, mu; 1 or 0.5.
        focal: weight of the classifier's focal loss on the fused codes; mu times 1.
        agree: weight of |u_image - u_label|^2; mu times 0.01.
        quantization: gamma, within each hash term; the published 200, of sums over 64 rows, is
            37.5 here.
        hidden: first width of the label and fusion networks; published 4096, and their second,
            512. The fusion network has hidden K^2 weights.
        dropout: share that the label and fusion networks drop.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    hash_image: Weight = 1.0
    hash_label: Annotated[Weight, Searched(log=(0.1, 5.0))] = 2.0
    hash_fused: Annotated[Weight, Searched(log=(0.1, 5.0))] = 1.0
    focal: Weight = 1.0
    agree: Weight = 0.01
    quantization: Annotated[Weight, Searched(log=(1.0, 100.0))] = 37.5
    hidden: Count = 512
    dropout: Share = 0.5


class Dcdh(DeepMethod[DcdhConfig]):
    """DCDH: images, label sets and both together are hashed, and the codes of rows are solved.

    L = hash(u) + lambda hash(l) + mu [hash(f) + focal(f W + b, y) + 0.01 mean_i |u_i - l_i|^2].
    hash is SCHN's, with soft negatives; l is of the labels, f of the outer product of l and u. The
    codes of rows are solved as SCHN's, with alpha = lambda / 2 and beta = mu / 2. The authors' code
    is not their paper: its label network never trains, and the update has the wrong signs. Here all
    is connected. Ours: narrower networks, random first codes. Their figures rank solved codes.

    Raises:
        SchnRayError: no two training rows share a label, or all do.
    """

    Config = DcdhConfig
    paper = Paper(
        "Deep Collaborative Discrete Hashing with Semantic-Invariant Structure",
        "SIGIR 2019",
        figures=(
            PublishedFigure(
                "MIRFlickr, 48 bits",
                ".895",
                "a gallery of 23,300 codes solved from their own labels",
                "authors' log",
            ),
        ),
    )

    def __init__(self, config: DcdhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        bits, label_sets = problem.bits, problem.label_sets
        self.label_network = _three_layers(problem.classes, config, bits)
        self.fusion_network = _three_layers(bits**2, config, bits)
        self.classifier = nn.Linear(bits, problem.classes)
        similar, dissimilar = pair_counts(label_sets.sizes, label_sets.sets)
        self._negative = -similar / dissimilar

    def start(self, codes: CodeTable) -> None:
        """Draw a code for each label set."""
        problem = self.problem
        first = initial_codes(
            "random", problem.label_sets, problem.bits, problem.seed, problem.lengths
        )
        codes.load_state_dict(first.state_dict())

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the hash terms of the three codes, the focal loss, and the codes' difference."""
        return self._terms(self._codes(out, batch), batch)

    def losses_and_outputs(
        self, out: Outputs, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all terms, and the codes of all three networks for the update."""
        codes = self._codes(out, batch)
        return self._terms(codes, batch), {name: code.detach() for name, code in codes.items()}

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Solve new codes [n_w, K] of this worker's rows."""
        label_sets = self.problem.label_sets
        return update_codes(
            B,
            outputs["U"],
            outputs["U_label"],
            outputs["U_fused"],
            torch.from_numpy(label_sets.set_of_row)[rows],
            label_sets.sets,
            alpha=self.config.hash_label / 2,
            beta=self.config.hash_fused / 2,
            gamma=self.config.quantization,
            sum_over_workers=self.problem.workers.sum,
        )

    def _codes(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        U = torch.tanh(out.h)
        L = torch.tanh(self.label_network(batch.Y[batch.own]))
        fused = torch.tanh(self.fusion_network((L[:, :, None] * U[:, None]).flatten(1)))
        return {"U": U, "U_label": L, "U_fused": fused}

    def _terms(self, codes: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        T, own = target_similarity(batch.similar, self._negative), batch.B[batch.own]
        U, L, fused = codes["U"], codes["U_label"], codes["U_fused"]
        gamma = self.config.quantization
        return {
            "hash_image": hash_loss(U, batch.B, T, own, gamma),
            "hash_label": hash_loss(L, batch.B, T, own, gamma),
            "hash_fused": hash_loss(fused, batch.B, T, own, gamma),
            "focal": focal_loss(self.classifier(fused), batch.Y[batch.own]),
            "agree": (U - L).square().sum(dim=1).mean(),
        }


def _three_layers(width: int, config: DcdhConfig, bits: int) -> nn.Sequential:
    inner = min(config.hidden, 512)
    layers = [nn.Linear(width, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)]
    layers += [nn.Linear(config.hidden, inner), nn.ReLU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Linear(inner, bits))
