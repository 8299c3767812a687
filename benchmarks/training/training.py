"""The speed of training: a step against a literal one, two workers against one, data, checkpoints.

    python -m benchmarks.training.training step|workers [--backbone alexnet] [--batch-size 64]

``step`` compares one step with what scripts do: a second pass through the backbone for the
adversarial part, and targets looked up in the similarity of all pairs of 5,000 rows; the losses of
both are printed. ``workers`` trains for some batches from JPEGs on one worker and on two real gloo
processes, a core and a thread each, and prints images/s, the share of the time that the step waited
for images, and how long a checkpoint takes. Two processes that train for themselves show what the
machine gives to a second core at all.
"""

import argparse
import copy
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from schn_ray.core.workers import Workers, current_workers
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.labels import multi_hot
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import Store, open_store
from schn_ray.methods.base import Batch, weighted
from schn_ray.methods.deep.schn.latent import BatchFeatures
from schn_ray.methods.deep.schn.method import Schn
from schn_ray.methods.losses import cycle_loss, hash_loss, judged_fake, judged_real
from schn_ray.methods.trainer import Trainer
from schn_ray.training import loop
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.descent import Descent
from schn_ray.training.run import build_run

CLASSES, PAIR_ROWS = 10, 5000


def write_store(folder: Path, rows: int) -> Path:
    """Write JPEGs of 500 x 375 pixels, smooth as photos, so that decoding costs what it does."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(rows):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        data = io.BytesIO()
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        images.append(data.getvalue())
    columns = {
        "id": [f"{i:05}" for i in range(rows)],
        "image": images,
        "label": [f"class {i % CLASSES}" for i in range(rows)],
    }
    pq.write_table(pa.table(columns), folder / "photos.parquet")
    config = PrepareConfig(query_share=0.05, train_share=0.9, validation_share=0)
    source = open_source(str(folder / "photos.parquet"), SourceConfig())
    prepare_store(source, config, folder / "store")
    return folder / "store"


def config_of(backbone: str, *settings: str) -> TrainConfig:
    named = (f"backbone.name={backbone}", "backbone.weights=none", "schedule.iterations=1")
    return train_config("schn-plus", None, (*named, "precision=float32", *settings))


def a_batch(config: TrainConfig, store: Store) -> Batch:
    size = config.schedule.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 224, 224, generator=generator)
    Y = multi_hot(store.labels, np.arange(size))
    B = torch.randint(0, 2, (size, config.bits), generator=generator).float() * 2 - 1
    return Batch(images.contiguous(memory_format=torch.channels_last), torch.arange(size), Y, B)


def trainer_of(config: TrainConfig, store: Store) -> Trainer:
    """Build SCHN and its optimisers as a run does."""
    run = build_run(config, store, Workers(), torch.device("cpu"))
    assert isinstance(run.learner, Descent)
    return run.learner.trainer


def literal_step(trainer: Trainer, batch: Batch, S: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Descend as scripts do; the second pass sees the same weights, so that losses are equal."""
    schn = trainer.method
    assert isinstance(schn, Schn)
    A = S[rows][:, rows]

    def latent_side(F_v: Tensor, F_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = BatchFeatures(F_v, F_s, A)
        Z, U_z = schn.latent(features, batch.gather)
        return U_z, *schn.cycle(features, Z, batch.gather)

    F_v, h = schn.encoder(batch.inputs)
    U_v = torch.tanh(h)
    F_s, U_s = schn.semantic(batch.Y)
    again_v, again_h = schn.encoder(batch.inputs)
    again_s, again_U_s = schn.semantic(batch.Y)
    U_z, R_v, R_s = latent_side(F_v.detach(), F_s.detach())
    gamma = schn.config.quantization
    terms = {
        "hash_image": hash_loss(U_v, batch.B, A, batch.B, gamma),
        "hash_semantic": hash_loss(U_s, batch.B, A, batch.B, gamma),
        "hash_latent": hash_loss(U_z, batch.B, A, batch.B, gamma),
        "cycle_image": cycle_loss(R_v, U_v),
        "cycle_semantic": cycle_loss(R_s, U_s),
    }
    _descend(trainer, "main", weighted(terms, schn.config))
    judges = schn.discriminators
    assert judges is not None
    _, R_v, R_s = latent_side(again_v.detach(), again_s.detach())
    real = judged_real(judges(torch.tanh(again_h).detach(), again_U_s.detach()))
    terms["discriminator"] = real + judged_fake(judges(R_v.detach(), R_s.detach()))
    _descend(trainer, "discriminators", terms["discriminator"])
    terms["adversarial"] = judged_real(judges(R_v, R_s))
    _descend(trainer, "generators", terms["adversarial"])
    return terms


def _descend(trainer: Trainer, name: str, loss: Tensor) -> None:
    trainer.optimisers[name].zero_grad()
    torch.autograd.backward(loss)
    trainer.optimisers[name].step()


def measure_step(folder: Path, backbone: str, batch_size: int, repeats: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    store = open_store(write_store(folder, 2 * batch_size + 100))
    config = config_of(backbone, f"schedule.batch_size={batch_size}", "method.latent_dropout=0")
    trainer = trainer_of(config, store)
    for module in trainer.method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # two passes would drop other features
    literal, batch = copy.deepcopy(trainer), a_batch(config, store)
    labels = torch.randint(0, CLASSES, (PAIR_ROWS,), generator=torch.Generator().manual_seed(1))
    labels[:batch_size] = batch.Y.argmax(1)
    S = (labels[:, None] == labels).float()
    rows = torch.arange(batch_size)
    ours, theirs = [], []
    for repeat in range(repeats + 1):
        started = time.perf_counter()
        step = trainer.step(batch)
        between = time.perf_counter()
        terms = literal_step(literal, batch, S, rows)
        ended = time.perf_counter()
        if repeat == 0:
            apart = max(abs(float(step.terms[k] - terms[k]) / float(terms[k])) for k in terms)
        else:  # the first one warms up
            ours.append(between - started)
            theirs.append(ended - between)
    print(
        f"{backbone}, batch {batch_size}: a step {np.median(ours):.2f} s, a literal one "
        f"{np.median(theirs):.2f} s: {np.median(theirs) / np.median(ours):.2f} times as long; "
        f"loss terms of the first step apart by {apart:.0e}"
    )


def measure_run(
    rank: int, size: int, together: bool, folder: Path, store: Path, config: TrainConfig
) -> None:
    torch.set_num_threads(1)
    if together:
        dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=size)
    run = build_run(config, open_store(store), current_workers(), torch.device("cpu"))
    torch.set_flush_denormal(True)
    loop.train_iteration(run)  # warms up
    run.iteration = 1
    measured = loop.train_iteration(run)
    saved_s = time.perf_counter()
    if rank == 0:
        run.save(folder, best=True)
    torch.save((measured, time.perf_counter() - saved_s), folder / f"{rank}.pt")
    if together:
        dist.destroy_process_group()


def measure_workers(folder: Path, backbone: str, batch_size: int, batches: int) -> None:
    store = write_store(folder, round(batch_size * batches / 0.9) + 50)

    def images_per_second(name: str, size: int, together: bool) -> float:
        rows = batch_size if size == 1 or together else batch_size // size
        config = config_of(
            backbone,
            f"schedule.batch_size={rows}",
            f"schedule.samples={rows * batches}",
            "schedule.epochs=1",
        )
        spawn(measure_run, (size, together, folder, store, config), nprocs=size)  # type: ignore[no-untyped-call]
        found = [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(size)]
        (folder / "meet").unlink(missing_ok=True)
        speeds = [measured.images_per_second for measured, _ in found]
        speed = speeds[0] if together else sum(speeds)
        print(f"  {name}: {speed:.1f} images/s, {found[0][0].data_wait:.2%} waiting for images")
        share = found[0][1] / (3 * 5000 / speed)
        print(f"    a checkpoint: {share:.2%} of an iteration of 3 x 5,000 images", flush=True)
        return float(speed)

    print(f"{backbone}, batches of {batch_size}, a thread each")
    one = images_per_second("1 worker", 1, together=False)
    two = images_per_second("2 workers", 2, together=True)
    apart = images_per_second(
        "2 processes that share nothing, half a batch each", 2, together=False
    )
    print(f"  2 workers: {two / one:.2f} times 1 worker, {two / apart:.2f} times the 2 processes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["step", "workers"])
    parser.add_argument("--backbone", default="alexnet")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="steps, or batches of an epoch")
    asked = parser.parse_args()
    measure = measure_step if asked.what == "step" else measure_workers
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), asked.backbone, asked.batch_size, asked.repeats)


if __name__ == "__main__":
    main()
