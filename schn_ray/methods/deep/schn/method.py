"""SCHN as a method for the training loop: its networks, one training step, its code update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from schn_ray.core.workers import Workers
from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Batch, Relaxed, Step
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.deep.schn.code_update import pair_counts, update_codes
from schn_ray.methods.deep.schn.config import CodesConfig, LossConfig
from schn_ray.methods.deep.schn.cycle import CYCLES, Discriminators
from schn_ray.methods.deep.schn.latent import BatchFeatures, LatentNetwork
from schn_ray.methods.deep.schn.semantic import SemanticNetwork
from schn_ray.methods.losses import (
    cycle_loss,
    hash_loss,
    judged_fake,
    judged_real,
    target_similarity,
)
from schn_ray.models.backbones import build_backbone
from schn_ray.models.config import NetworkConfig
from schn_ray.models.encoder import ImageNetwork
from schn_ray.models.global_dropout import share_dropout
from schn_ray.models.parallel import complete_gradients, data_parallel, factor_gradients
from schn_ray.models.precision import Precision


class Forward(NamedTuple):
    """Outputs of a forward pass through all networks, for this worker's rows."""

    features: BatchFeatures
    U_v: Tensor
    U_s: Tensor
    U_z: Tensor
    R_v: Tensor
    R_s: Tensor


class SchnNetworks(nn.Module):
    """All networks of SCHN; only ``image`` is released.

    Args:
        config: sizes and variants.
        bits: K.
        classes: C.
        adversarial: with discriminators, as in ``schn``; without, as in ``schn-mmasia``.
    """

    def __init__(self, config: NetworkConfig, bits: int, classes: int, adversarial: bool) -> None:
        super().__init__()
        backbone, visual_dim = build_backbone(config.backbone, config.weights, config.base_channels)
        self.image = ImageNetwork(backbone, visual_dim, bits, config.freeze_batch_norm)
        self.semantic = SemanticNetwork(classes, config.semantic_dim, bits)
        self.latent = LatentNetwork(
            visual_dim,
            config.semantic_dim,
            config.latent_dim,
            bits,
            config.latent_dropout,
            config.latent_activation,
            mean_over_neighbours=config.label_graph == "mean",
        )
        self.cycle = CYCLES[config.cycle](visual_dim, config.semantic_dim, config.latent_dim, bits)
        self.discriminators = Discriminators(bits) if adversarial else None

    def generators(self) -> list[nn.Parameter]:
        """Return the parameters that L_G changes: those of the latent and the cycle networks."""
        return [*self.latent.parameters(), *self.cycle.parameters()]


class Schn:
    """Semantically Cycle-consistent Hashing Networks: networks, optimisers, step and code update.

    Args:
        networks: on the device where they stay.
        loss: weight of each term. The adversarial weight scales two losses that have Adam
            optimisers of their own. Adam divides the scale out, so it only matters whether the
            weight is 0.
        codes: weights of the code update.
        schedule: learning rate and its decay.
        label_sets: of all training rows; the code update works on these.
        workers: who shares each global batch.
        precision: number format of the networks.
        compiled: let torch compile the image network.

    Raises:
        SchnRayError: no two training rows share a label, or all do.
    """

    def __init__(
        self,
        networks: SchnNetworks,
        loss: LossConfig,
        codes: CodesConfig,
        schedule: ScheduleConfig,
        label_sets: LabelSets,
        workers: Workers,
        precision: Precision,
        compiled: bool = False,
    ) -> None:
        self.networks, self.loss, self.codes, self.schedule = networks, loss, codes, schedule
        self.label_sets, self.workers, self.precision = label_sets, workers, precision
        similar, dissimilar = pair_counts(label_sets.sizes, label_sets.sets)
        self.negative = -similar / dissimilar if loss.negative_target == "soft" else 0.0
        for network in networks.children():
            if network is not networks.image:
                factor_gradients(network, workers)
        self._dropout = share_dropout(networks, workers)
        networks.image.to(memory_format=torch.channels_last)
        image = data_parallel(networks.image, workers)
        self._image = torch.compile(image) if compiled else image
        self.optimisers = self._make_optimisers()

    @property
    def encoder(self) -> ImageNetwork:
        """The network that is released."""
        return self.networks.image

    def begin_iteration(self, iteration: int) -> None:
        """Set the learning rates of outer iteration 1, 2, ...; each past decay lowers them."""
        passed = sum(iteration > after for after in self.schedule.decay_after)
        decayed = self.schedule.learning_rate * self.schedule.decay_factor**passed
        for name, optimiser in self.optimisers.items():
            held = self.schedule.decay == "adversarial" and name == "main"
            for group in optimiser.param_groups:
                group["lr"] = self.schedule.learning_rate if held else decayed

    def step(self, batch: Batch) -> Step:
        """Descend L, then L_D, then L_G, once on a global batch (docs/method.md, "Losses")."""
        total = len(batch.Y)
        share = self.workers.share(total)
        for layer in self._dropout:
            layer.rows = total
        out = self._forward(batch)
        terms = self._code_terms(out, batch)
        self._descend("main", share * weighted(terms, self.loss))
        if self.networks.discriminators is not None:
            terms |= self._adversarial_steps(self.networks.discriminators, out, share, total)
        relaxed = Relaxed(out.U_v.detach(), out.U_s.detach(), out.U_z.detach())
        return Step({name: term.detach() for name, term in terms.items()}, relaxed)

    def update(self, rows: Tensor, B: Tensor, relaxed: Relaxed) -> Tensor:
        """Return new codes [n_w, K] of this worker's rows [n_w], from codes B and relaxed codes."""
        set_of_row = torch.from_numpy(self.label_sets.set_of_row)[rows]
        return update_codes(
            B,
            *relaxed,
            set_of_row,
            self.label_sets.sets,
            alpha=self.codes.alpha,
            beta=self.codes.beta,
            gamma=self.loss.quantization,
            sum_over_workers=self.workers.sum,
        )

    def _forward(self, batch: Batch) -> Forward:
        own = self.workers.own(len(batch.Y))
        gather = self.workers.gather(len(batch.Y))
        Y_own = batch.Y[own]
        A = (Y_own @ batch.Y.T > 0).to(Y_own.dtype)
        with self.precision.for_networks():
            F_v, U_v = self._image(batch.images)
            F_s, U_s = self.networks.semantic(Y_own)
            visual, semantic = F_v.detach(), F_s.detach()
            features = BatchFeatures(visual, semantic, A)
            Z, U_z = self.networks.latent(features, gather)
            R_v, R_s = self.networks.cycle(features, Z, gather)
        codes = (U.to(batch.B.dtype) for U in (U_v, U_s, U_z, R_v, R_s))
        return Forward(features, *codes)

    def _code_terms(self, out: Forward, batch: Batch) -> dict[str, Tensor]:
        B_own = batch.B[self.workers.own(len(batch.Y))]
        T = target_similarity(out.features.A, self.negative)
        gamma = self.loss.quantization
        return {
            "hash_image": hash_loss(out.U_v, batch.B, T, B_own, gamma),
            "hash_semantic": hash_loss(out.U_s, batch.B, T, B_own, gamma),
            "hash_latent": hash_loss(out.U_z, batch.B, T, B_own, gamma),
            "cycle_image": cycle_loss(out.R_v, out.U_v),
            "cycle_semantic": cycle_loss(out.R_s, out.U_s),
        }

    def _adversarial_steps(
        self, discriminators: Discriminators, out: Forward, share: float, total: int
    ) -> dict[str, Tensor]:
        # the features are detached, so only the latent and cycle networks must run again
        gather = self.workers.gather(total)
        with self.precision.for_networks():
            Z, _ = self.networks.latent(out.features, gather)
            R_v, R_s = self.networks.cycle(out.features, Z, gather)
        R_v, R_s = (R.to(out.U_v.dtype) for R in (R_v, R_s))
        real = judged_real(discriminators(out.U_v.detach(), out.U_s.detach()))
        fake = judged_fake(discriminators(R_v.detach(), R_s.detach()))
        weight = share * self.loss.adversarial
        self._descend("discriminators", weight * (real + fake))
        fooling = judged_real(discriminators(R_v, R_s))
        self._descend("generators", weight * fooling)
        return {"discriminator": real + fake, "adversarial": fooling}

    def _descend(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        moved = [p for group in optimiser.param_groups for p in group["params"]]
        # DDP's hooks on the image network run only when backward is given no inputs
        loss.backward(inputs=None if name == "main" else moved)
        complete_gradients(self.networks, self.workers, moved)
        optimiser.step()

    def _make_optimisers(self) -> dict[str, Optimizer]:
        def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
            return Adam(
                parameters,
                lr=self.schedule.learning_rate,
                weight_decay=self.schedule.weight_decay,
                fused=True,  # one pass over memory, which limits the speed of a step on a CPU
            )

        networks = self.networks
        main = [*networks.image.parameters(), *networks.semantic.parameters()]
        main += networks.generators()
        optimisers = {"main": adam(main)}
        if self.networks.discriminators is not None:
            optimisers["discriminators"] = adam(self.networks.discriminators.parameters())
            optimisers["generators"] = adam(self.networks.generators())
        return optimisers


def weighted(terms: Mapping[str, Tensor], weights: LossConfig) -> Tensor:
    """Return the sum of loss terms, each times the weight of the same name.

    Args:
        terms: scalars by name.
        weights: a field for each name.
    """
    parts = [getattr(weights, name) * term for name, term in terms.items()]
    return torch.stack(parts).sum()
