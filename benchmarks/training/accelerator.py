"""What an accelerator gives: rates beside a bare PyTorch loop, bits that differ, fine-tuning.

    python -m benchmarks.training.accelerator FOLDER --photos cifar.parquet --weights FILE

1. Training of ResNet-50 at 224 pixels: images/s of ``train`` (CSQ, random weights), and of a bare
   loop over the same network, batch and optimiser with one batch that is on the device already, so
   that it decodes nothing. The share of time that training waited for images says what is left.
2. Embedding with the same network: images/s from bytes to vectors, and of the bare forward pass.
3. Codes of one model on the CPU in float32, and on the device in float32, TF32 and bfloat16: the
   share of bits that differ.
4. Fine-tuning EfficientNet-Lite0 (``--weights`` of benchmarks.support.efficientnet_lite0) at 128
   pixels against training its head alone: validation mAP and seconds.

PHOTOS is a Parquet of labelled images. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softplus

import schn_ray
from schn_ray.data.images import evaluation_view
from schn_ray.data.store.reader import Store, open_store
from schn_ray.models.backbones.saved import build_fixed_backbone
from schn_ray.models.config import BackboneConfig, PrecisionName
from schn_ray.models.embed import Embedder
from schn_ray.models.hasher import best_device
from schn_ray.models.load import load
from schn_ray.training.metrics_file import read_metrics

NETWORK, BATCH, BITS = "resnet50", 128, 32
PRECISIONS: tuple[PrecisionName, ...] = ("float32", "tf32", "bf16")


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def synchronised(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(work: Callable[[], object], images: int, device: torch.device, repeats: int = 20) -> float:
    """Return images/s, after a warm-up."""
    for _ in range(5):
        work()
    synchronised(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    synchronised(device)
    return images * repeats / (time.perf_counter() - started)


def bare_training(device: torch.device, precision: PrecisionName) -> float:
    """A loop as anybody writes it: forward, a pull to fixed targets, backward, Adam."""
    backbone = build_fixed_backbone(BackboneConfig(name=NETWORK, weights="none"))
    network = torch.nn.Sequential(backbone.module, torch.nn.Linear(backbone.width, BITS))
    network = network.to(device, memory_format=torch.channels_last).train()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-5, fused=True)
    images = torch.randn(BATCH, 3, 224, 224, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 2, (BATCH, BITS), device=device) * 2.0 - 1

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            h = network(images)
        softplus(-2 * targets * h.float()).mean().backward()
        optimiser.step()

    return rate(step, BATCH, device)


def training(store: str, folder: Path, device: torch.device) -> None:
    for precision in ("tf32", "bf16"):
        settings = {
            "precision": precision,
            "schedule.batch_size": BATCH,
            "schedule.iterations": 3,
            "schedule.epochs": 1,
            "schedule.eval_every": 3,
            "backbone.image_size": 224,
        }
        run = schn_ray.train(
            store,
            folder / f"rate-{precision}",
            method="csq",
            backbone=NETWORK,
            weights="none",
            settings=settings,
        )
        last = read_metrics(run)[-1]
        say(
            what="training",
            precision=precision,
            images_per_second=round(last["images_per_second"]),
            waited_for_images=round(last["data_wait"], 3),
            bare=round(bare_training(device, precision)),
        )


def embedding(store: Store, device: torch.device) -> None:
    rows = store.rows("train")[:2048]
    backbone = build_fixed_backbone(BackboneConfig(name=NETWORK, weights="none"))
    assert backbone.preprocessing is not None
    decoded = [
        evaluation_view(store.image(int(row)), backbone.preprocessing) for row in rows[:BATCH]
    ]
    views = np.stack(decoded)
    for precision in PRECISIONS:
        embedder = Embedder(backbone, precision, device)
        torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
        torch.backends.cudnn.allow_tf32 = precision != "float32"
        ours = rate(lambda e=embedder: e.vectors(views), BATCH, device)  # type: ignore[misc]
        batch = torch.randn(BATCH, 3, 224, 224, device=device)

        def bare(e: Embedder = embedder, x: torch.Tensor = batch) -> None:
            with torch.inference_mode(), e._precision.for_networks():
                e._module(x)

        figures = {"images_per_second": round(ours), "bare": round(rate(bare, BATCH, device))}
        say(what="embedding, images decoded", precision=precision, **figures)


def bits(run: str, store: Store, device: torch.device) -> None:
    cpu = load(run, torch.device("cpu"))
    rows = store.rows("query")[:1000]
    views = np.stack([evaluation_view(store.image(int(row)), cpu.of_images()) for row in rows])

    def codes(of_device: torch.device, precision: PrecisionName) -> np.ndarray[Any, Any]:
        hasher = load(run, of_device, precision)
        hasher.precision.set_products()
        batches = (views[at : at + 100] for at in range(0, len(views), 100))
        return hasher.encode_views(batches)

    expected = codes(torch.device("cpu"), "float32")
    for precision in PRECISIONS:
        differ = np.unpackbits(expected ^ codes(device, precision)).sum()
        say(
            what="bits that differ from the CPU's",
            precision=precision,
            share=differ / (8 * expected.size),
        )


def fine_tuning(store: str, folder: Path, weights: Path) -> None:
    common = {
        "backbone.image_size": 128,
        "schedule.batch_size": 64,
        "schedule.iterations": 10,
        "schedule.decay_after": [7, 9],
    }
    for method in ("csq", "schn-plus"):
        for frozen in (True, False):
            rates = {"optimiser.learning_rate": 1e-3, "optimiser.backbone_rate": 0.1}
            started = time.perf_counter()
            run = schn_ray.train(
                store,
                folder / f"{method}-{'frozen' if frozen else 'fine-tuned'}",
                method=method,
                backbone="timm:tf_efficientnet_lite0",
                weights=str(weights),
                settings=common | rates | {"backbone.frozen": frozen},
            )
            seconds = time.perf_counter() - started
            figures = schn_ray.evaluate(run, store, settings={"controls.train_rows": 0})
            say(
                what="fine-tuning" if not frozen else "head on frozen features",
                method=method,
                seconds=round(seconds),
                mean_average_precision=round(float(figures.figures.map or 0), 4),
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="for fine-tuning")
    options = parser.parse_args()
    device = best_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    say(device=name, torch=torch.__version__, cpus=os.cpu_count())
    split = {"query_share": 0.1, "train_share": 0.35, "validation_share": 0.1}
    store = schn_ray.prepare(options.photos, options.folder / "store", settings=split)
    training(store, options.folder, device)
    embedding(open_store(store), device)
    bits(str(options.folder / "rate-bf16"), open_store(store), device)
    if options.weights is not None:
        fine_tuning(store, options.folder, options.weights)


if __name__ == "__main__":
    main()
