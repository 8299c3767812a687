"""SCHN as a method: its networks, one training step, its code update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from schn_ray.methods.base import Batch, DeepMethod, Paper, Problem, Step, Training, weighted
from schn_ray.methods.classifiers import LabelClassifier
from schn_ray.methods.code_table import CodeTable, initial_codes
from schn_ray.methods.deep.schn.code_update import pair_counts, update_codes
from schn_ray.methods.deep.schn.config import SchnConfig, SchnMmasiaConfig, SchnPlusConfig
from schn_ray.methods.deep.schn.cycle import CYCLES, Discriminators
from schn_ray.methods.deep.schn.latent import BatchFeatures, LatentNetwork
from schn_ray.methods.deep.schn.lengths import CodeTerms, MeanOfLengths, OneLength
from schn_ray.methods.deep.schn.semantic import SemanticNetwork
from schn_ray.methods.losses import (
    balanced_mean,
    judged_fake,
    judged_real,
    label_overlap,
    target_similarity,
)
from schn_ray.models.encoder import Encoder


class Latent(NamedTuple):
    """Outputs of the latent and the cycle networks, for this worker's rows."""

    features: BatchFeatures
    U_z: Tensor
    R_v: Tensor
    R_s: Tensor


class Forward(NamedTuple):
    """Outputs of a forward pass through the networks that there are, for this worker's rows."""

    F_v: Tensor
    U_v: Tensor
    U_s: Tensor | None
    latent: Latent | None


class Schn(DeepMethod[SchnConfig]):
    """Semantically Cycle-consistent Hashing Networks: pairs, cycles and adversaries.

    Three networks hash images, label sets and a latent mixture of both; cycles reconstruct the
    first two codes from the third, and discriminators judge the reconstructions. The codes of the
    training rows are solved from all three, exactly and without the matrix of pairs. Networks whose
    loss terms all have the weight 0 are left out.

    Raises:
        SchnRayError: no two training rows share a label, or all do.
    """

    Config = SchnConfig
    one_network = True
    paper = Paper(
        "Semantically Cycle-consistent Hashing Networks", "ACM TOMM 2022; ACM MM Asia 2021"
    )

    def __init__(self, config: SchnConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        visual_dim, bits = problem.width, problem.bits
        self.semantic: SemanticNetwork | None = None
        self.latent: LatentNetwork | None = None
        if config.with_semantic:
            self.semantic = SemanticNetwork(problem.classes, config.semantic_dim, bits)
        if config.with_latent:
            self.latent = LatentNetwork(
                visual_dim,
                config.semantic_dim,
                config.latent_dim,
                bits,
                config.latent_dropout,
                config.latent_activation,
                mean_over_neighbours=config.label_graph == "mean",
            )
            self.cycle = CYCLES[config.cycle](
                visual_dim, config.semantic_dim, config.latent_dim, bits
            )
        self.classifier: LabelClassifier | None = None
        if config.classifier > 0:
            self.classifier = LabelClassifier(visual_dim, problem)
        self.discriminators = Discriminators(bits) if config.adversarial > 0 else None
        similar, dissimilar = pair_counts(problem.label_sets.sizes, problem.label_sets.sets)
        self._negative = -similar / dissimilar if config.negative_target == "soft" else 0.0

    def start(self, codes: CodeTable) -> None:
        """Set the codes that the update starts from."""
        problem = self.problem
        initial = initial_codes(
            self.config.initial_codes,
            problem.label_sets,
            problem.bits,
            problem.seed,
            problem.lengths,
        )
        codes.load_state_dict(initial.state_dict())

    def optimised(self) -> dict[str, list[nn.Parameter]]:
        """L changes all but the discriminators, L_D these, L_G the latent and cycle networks."""
        generators: list[nn.Parameter] = []
        if self.latent is not None:
            generators = [*self.latent.parameters(), *self.cycle.parameters()]
        semantic = [] if self.semantic is None else list(self.semantic.parameters())
        classifier = [] if self.classifier is None else list(self.classifier.parameters())
        main = [*self.encoder.parameters(), *semantic, *generators, *classifier]
        if self.discriminators is None:
            return {"main": main}
        judges = list(self.discriminators.parameters())
        return {"main": main, "discriminators": judges, "generators": generators}

    def undecayed(self) -> frozenset[str]:
        """The main optimiser, where only the adversarial ones decay."""
        return frozenset({"main"} if self.config.decay == "adversarial" else ())

    def step(self, batch: Batch, training: Training) -> Step:
        """Descend L, then L_D, then L_G, once on a global batch (docs/method.md, "Losses")."""
        return self._step(batch, OneLength(batch.B, batch.own), training)

    def step_of_lengths(self, batch: Batch, codes: Tensor, training: Training) -> Step:
        """Descend the mean of L over the lengths of nested codes, then L_D and L_G of all bits.

        L is of outputs and codes, not of weights, so all lengths use the same networks.
        """
        of_codes = MeanOfLengths(codes, self.problem.lengths, batch.own)
        return self._step(batch, of_codes, training)

    def _step(self, batch: Batch, of_codes: CodeTerms, training: Training) -> Step:
        out = self._forward(batch, training)
        terms = self._code_terms(out, batch, of_codes)
        if self.classifier is not None:
            terms["classifier"] = self.classifier(out.F_v, batch)
        training.descend(batch.share * weighted(terms, self.config))
        if self.discriminators is not None:
            terms |= self._adversarial_steps(self.discriminators, out, batch, training)
        relaxed = {"U": out.U_v.detach()}
        if out.U_s is not None:
            relaxed["U_s"] = out.U_s.detach()
        if out.latent is not None:
            relaxed["U_z"] = out.latent.U_z.detach()
        return Step({name: term.detach() for name, term in terms.items()}, relaxed)

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Solve new codes [n_w, K] of this worker's rows [n_w] from codes B and relaxed codes."""
        if not self.config.update_codes:
            return None
        label_sets, none = self.problem.label_sets, torch.zeros_like(outputs["U"])
        return update_codes(
            B,
            outputs["U"],
            outputs.get("U_s", none),
            outputs.get("U_z", none),
            torch.from_numpy(label_sets.set_of_row)[rows],
            label_sets.sets,
            alpha=self.config.alpha,
            beta=self.config.beta,
            gamma=self.config.quantization,
            sum_over_workers=self.problem.workers.sum,
        )

    def _forward(self, batch: Batch, training: Training) -> Forward:
        dtype = batch.B.dtype
        with self.problem.precision.for_networks():
            F_v, h = training.encode(batch.inputs)
            U_v = torch.tanh(h)
            if self.semantic is None:
                return Forward(F_v, U_v.to(dtype), None, None)
            F_s, U_s = self.semantic(batch.Y[batch.own])
            if self.latent is None:
                return Forward(F_v, U_v.to(dtype), U_s.to(dtype), None)
            features = BatchFeatures(F_v.detach(), F_s.detach(), batch.similar)
            Z, U_z = self.latent(features, batch.gather)
            R_v, R_s = self.cycle(features, Z, batch.gather)
        latent = Latent(features, *(U.to(dtype) for U in (U_z, R_v, R_s)))
        return Forward(F_v, U_v.to(dtype), U_s.to(dtype), latent)

    def _code_terms(self, out: Forward, batch: Batch, of_codes: CodeTerms) -> dict[str, Tensor]:
        T = target_similarity(batch.similar, self._negative)
        gamma = self.config.quantization
        terms = {"hash_image": of_codes.hash_loss(out.U_v, T, gamma)}
        if self.config.pair > 0:
            terms["pair"] = self._pair_term(out.U_v, batch, of_codes)
        if out.U_s is not None:
            terms["hash_semantic"] = of_codes.hash_loss(out.U_s, T, gamma)
        if out.latent is not None:
            assert out.U_s is not None
            _, U_z, R_v, R_s = out.latent
            terms["hash_latent"] = of_codes.hash_loss(U_z, T, gamma)
            terms["cycle_image"] = of_codes.cycle_loss(R_v, out.U_v)
            terms["cycle_semantic"] = of_codes.cycle_loss(R_s, out.U_s)
        return terms

    def _pair_term(self, U: Tensor, batch: Batch, of_codes: CodeTerms) -> Tensor:
        A = batch.similar
        likelihood = of_codes.pair_nll(U, batch.gather(U), self.config.pair_scale, A)
        return balanced_mean(
            likelihood * torch.where(A > 0, label_overlap(batch), 1), batch.pairs, batch
        )

    def _adversarial_steps(
        self, discriminators: Discriminators, out: Forward, batch: Batch, training: Training
    ) -> dict[str, Tensor]:
        assert self.latent is not None
        assert out.U_s is not None
        assert out.latent is not None
        # the features are detached, so only the latent and cycle networks must run again
        features = out.latent.features
        with self.problem.precision.for_networks():
            Z, _ = self.latent(features, batch.gather)
            R_v, R_s = self.cycle(features, Z, batch.gather)
        R_v, R_s = (R.to(out.U_v.dtype) for R in (R_v, R_s))
        real = judged_real(discriminators(out.U_v.detach(), out.U_s.detach()))
        fake = judged_fake(discriminators(R_v.detach(), R_s.detach()))
        weight = batch.share * self.config.adversarial
        training.descend(weight * (real + fake), "discriminators")
        fooling = judged_real(discriminators(R_v, R_s))
        training.descend(weight * fooling, "generators")
        return {"discriminator": real + fake, "adversarial": fooling}


class SchnMmasia(Schn):
    """The ACM MM Asia 2021 variant of SCHN: without discriminators, with another cycle.

    In its reconstructions, features are the queries and latent vectors the keys and values.
    """

    Config = SchnMmasiaConfig


class SchnPlus(Schn):
    """SCHN with this project's corrections, the default method: codes start at random.

    As published, codes start at 0, and the hash losses pull the networks to 0 for an iteration.
    Here each label set starts with a random code of its own. On features that stay as they are
    (preset ``frozen``) only the image's term of the loss is left, as the other networks change no
    figure there. And pairs of image codes have a likelihood of their own,

      pair(U) = mean over similar pairs of w l + mean over dissimilar ones of l,
      l_ij = softplus(theta_ij) - A_ij theta_ij,  theta_ij = a / K U_i . U_j,

    w the labels in common over those of either. It is the likelihood of HashNet (Cao et al., ICCV
    2017), as ``hashnet`` has it, without its continuation. The hash loss compares with codes that
    are solved once an iteration, and takes rows with one of six labels in common for as similar as
    rows with the same six.

    Where the image network is trained from scratch (preset ``cifar10``), a linear classifier gives
    its features a loss of their own: pairs alone hardly move them at first.
    """

    Config = SchnPlusConfig
