"""CIM, MAE and SimMIM at equal time: held-out loss, k-NN and CIM's inner terms over the seconds, then probes.

    python benchmarks/equal_time.py --data TINY --work WORK --output OUT --method cim-published --seed 0

One training; several are started side by side, and with ``--processes N`` wait for each other, so that each has the
same share of the device. A short calibration measures steps a second, and the epochs follow from ``--seconds``.
TINY is an image folder with ``train`` and ``val`` of 64-pixel images; WORK gets caches and checkpoints, OUT curves and
records. Inputs are drawn on the device (device_inputs.py); models, loop, export and probes are the suite's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from device_inputs import IMAGES, DeviceCIM, DeviceCIMModel, DeviceMAE, DeviceSimMIM, Places
from torch import Tensor

from cim_bench.api import run
from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.data.images import ImageSet
from cim_bench.data.transforms import to_uint8
from cim_bench.engine.fit import Fit
from cim_bench.evals.knn import KNN
from cim_bench.evals.linear_probe import LinearProbe
from cim_bench.evals.metrics import knn_predict
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs import pretraining
from cim_bench.jobs.identity import pretraining_key
from cim_bench.models.backbone import Backbone
from cim_bench.pretrain.cim.exemplars import correlation_maps
from cim_bench.recipes.small import linear
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training

SIDE, BATCH, POINTS, CALIBRATION = 64, 128, 16, 15.0  # pixels, images a step, looks at a curve, seconds
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OPTIONS = {"patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3}
ARCH = Arch(name="vit_small_patch16_224", image_size=SIDE, options=OPTIONS)
MACHINE = Machine(workers=0, micro_batch=BATCH, save_every_s=1e6, log_every=25)
PUBLISHED = DeviceCIM(
    context_size=SIDE,
    exemplar_size=SIDE // 2,
    num_exemplars=4,
    decoder_dim=128,
    decoder_heads=4,
    map_std=None,
    ema_momentum=(0.95, 1.0),
)
PRETEXTS = {
    "cim-published": PUBLISHED,
    "cim-plain": replace(PUBLISHED, max_degrees=0, photometric=False),
    "cim-curriculum": replace(PUBLISHED, begin=0.1, full=0.5),
    "mae": DeviceMAE(decoder_dim=96, decoder_depth=2, decoder_heads=3),
    "simmim": DeviceSimMIM(mask_patch=16, drop_path=0.0),
}
DRAWS = {"published": (45, True), "plain": (0, False)}  # largest angle, and whether colours change


class EnoughError(Exception):
    """Time is over."""


class Watch:
    """Runs beside `Fit`: ends it after some seconds of training, and looks at the model on the way.

    Args:
        recipe: The training.
        limit: Seconds; looks and validations do not count.
        file: Gets a line a look; `None` for no looks.
    """

    def __init__(self, recipe: Pretraining, limit: float, file: Path | None = None) -> None:
        self.recipe, self.limit, self.file = recipe, limit, file
        self.began, self.paused, self.steps = 0.0, 0.0, 0
        self.marks: list[tuple[float, int]] = []
        self.backbone = Backbone(ARCH).to(DEVICE).eval()
        self.images = ImageSet(recipe.data, "train")

    def __enter__(self) -> Watch:
        watched = Fit.run
        self.original = watched

        def run_watched(fit: Fit, after_step: Any, validate: Any) -> Any:
            return watched(fit, self.wrap(fit, after_step), lambda: self.pause(validate))

        Fit.run = run_watched  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Fit.run = self.original  # type: ignore[method-assign]

    def wrap(self, fit: Fit, after_step: Any) -> Any:
        """What `Fit` calls after each step."""
        total, self.began = fit.steps.total, time.monotonic()
        due = sorted({round(total * (i / POINTS) ** 1.6) for i in range(POINTS + 1)})
        if self.file:
            self.pause(lambda: self.look(fit.raw, 0, full=True))

        def hooked(progress: float) -> None:
            after_step(progress)
            self.steps += 1
            if self.file and self.steps in due:
                full = due.index(self.steps) % 3 == 0 or self.steps == total
                self.pause(lambda: self.look(fit.raw, self.steps, full=full))
            self.marks.append((self.seconds(), self.steps))
            if self.marks[-1][0] > self.limit:
                raise EnoughError

        return hooked

    def seconds(self) -> float:
        """Of training, so far."""
        return time.monotonic() - self.began - self.paused

    def pause(self, work: Any) -> Any:
        """Do something that does not count as training."""
        start = time.monotonic()
        try:
            return work()
        finally:
            self.paused += time.monotonic() - start

    def look(self, model: Any, step: int, *, full: bool) -> None:
        """One line of the curve; k-NN only if `full`."""
        assert self.file
        was, line = model.training, {"step": step, "seconds": round(self.seconds(), 3)}
        if isinstance(model, DeviceCIMModel):
            line |= gradients(model)
            for name, (degrees, colour) in DRAWS.items():
                kept = model.settings
                model.settings = replace(kept, max_degrees=degrees, photometric=colour)
                found = pretraining.held_out(model, self.recipe, self.images)
                model.settings = kept
                line |= {f"{name}.{metric}": value for metric, value in found.items()}
            line |= correlation_terms(model.eval())
        else:
            line |= pretraining.held_out(model, self.recipe, self.images)
        if full:
            self.backbone.net.load_state_dict(model.backbone_state("online"))
            line["knn20"] = knn(self.backbone)
        model.train(was)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")


@torch.no_grad()
def knn(backbone: Backbone) -> float:
    """Top-1 on the validation images, k = 20, mean of the patch tokens."""
    features = {}
    for split in ("train", "val"):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
            parts = [backbone.feature(part.float() / 255, "mean_patch") for part in torch.split(IMAGES[split], 2048)]
        features[split] = torch.cat(parts).float()
    labels, own = IMAGES["train_labels"], IMAGES["val_labels"]
    classes = int(labels.max()) + 1
    found = knn_predict(features["train"], labels, features["val"], ks=(20,), temperature=0.07, num_classes=classes)
    return float((found[20] == own).float().mean())


@torch.no_grad()
def correlation_terms(model: DeviceCIMModel) -> dict[str, float]:
    """What has begun to work: attention, the encoder, the maps; on 128 held-out images under the model's own draws."""
    count = len(IMAGES["val"])
    places = torch.arange(128, device=DEVICE) * count // 128
    made = model.make({"index": places, "draw": torch.full((128,), -1), "train": torch.zeros(128)})
    logits, seen, shown = model.predict(made)
    maps = correlation_maps(made["boxes"], model.side, model.settings.context_size).float()
    share = F.adaptive_avg_pool2d(maps, model.grids[0]).flatten(2)  # (B, E, L) of each cell that lies inside
    inside, outside = (share > 0.75).float(), (share < 0.25).float()

    context, tokens = seen[:, 1:].float(), shown[:, :, 1:].float()
    unit_c, unit_t = F.normalize(context, dim=-1), F.normalize(tokens, dim=-1)
    alike = torch.einsum("bld,betd->belt", unit_c, unit_t).amax(-1)  # (B, E, L)
    gap = (alike * inside).sum(2) / inside.sum(2).clamp(min=1) - (alike * outside).sum(2) / outside.sum(2).clamp(min=1)

    block = model.decoder_block
    q = block.q(block.norm1(model.decoder_embed(seen[:, 1:]) + model.decoder_positions))
    k = block.kv(block.norm1(model.decoder_embed(shown)))[..., : q.shape[-1]]
    q, k = (x.unflatten(-1, (block.heads, -1)) for x in (q, k))
    score = torch.einsum("blhw,bethw->belht", q, k).float() / q.shape[-1] ** 0.5
    weights = score.softmax(-1)
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(-1) / math.log(weights.shape[-1])
    terms: dict[str, Tensor] = {
        "attention_entropy": entropy.mean(),
        "attention_score_std": score.std(dim=-1).mean(),
        "token_cosine": torch.einsum("betd,besd->bets", unit_t, unit_t).mean(),
        "token_std": tokens.std(dim=(0, 1, 2)).mean(),
        "encoder_contrast": (gap / alike.std(dim=2).clamp(min=1e-9)).mean(),
        "map_variance": logits.sigmoid().var(dim=1).mean(),
    }
    return {name: float(value) for name, value in terms.items()}


def gradients(model: DeviceCIMModel) -> dict[str, float]:
    """Norms of the last step's gradients, after clipping."""
    squares = {"encoder": 0.0, "decoder": 0.0}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares["encoder" if name.startswith("online") else "decoder"] += float(parameter.grad.square().sum())
    return {f"grad_{part}": value**0.5 for part, value in squares.items()}


def schedule(epochs: int) -> Training:
    """The same for all methods."""
    return Training(
        epochs=epochs,
        warmup_epochs=0.05 * epochs,
        effective_batch=BATCH,
        base_lr=1e-3 * 256 / BATCH,
        weight_decay=0.05,
        clip_grad=1.0,
        precision="bf16" if DEVICE.type == "cuda" else "fp32",
    )


def load_images(data: Data, work: Path) -> None:
    """Both splits onto the device; decoded by whichever process comes first."""
    file = work / "images.pt"
    if not file.exists():
        made: dict[str, Tensor] = {}
        for split in ("train", "val"):
            images = ImageSet(data, split)
            read = [images.read(i) for i in range(len(images))]
            made[split] = torch.stack([to_uint8(image) for image, _ in read])
            made[f"{split}_labels"] = torch.tensor([label for _, label in read])
        own = work / f"images.{time.monotonic_ns()}"
        torch.save(made, own)
        own.replace(file)
    IMAGES.update({name: value.to(DEVICE) for name, value in torch.load(file).items()})


def wait_for_all(folder: Path, me: str, processes: int) -> None:
    """Until all processes are here, or for a minute."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / me).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < processes and time.monotonic() < end:
        time.sleep(0.05)


def train(args: argparse.Namespace, data: Data, me: str) -> Path:
    """Calibrate and train; the checkpoint's folder."""
    images = ImageSet(data, "train")
    recipe = Pretraining(
        pretext=PRETEXTS[args.method], arch=ARCH, data=data, training=schedule(1000), machine=MACHINE, seed=args.seed
    )
    for stage, seconds in (("warm", 0.0), ("calibration", CALIBRATION)):
        wait_for_all(args.work / stage, me, args.processes)
        try:
            with Watch(recipe, seconds) as watch:
                pretraining.pretrain(recipe, args.work / f"{me}-{stage}", stage)
        except EnoughError:
            continue
    late = [mark for mark in watch.marks if mark[0] > CALIBRATION / 3]
    rate = (late[-1][1] - late[0][1]) / (late[-1][0] - late[0][0])
    recipe = replace(recipe, training=schedule(max(1, round(args.seconds * rate * BATCH / len(images)))))
    print(f"{me}: {rate:.2f} steps/s, so {recipe.training.epochs} epochs", flush=True)
    wait_for_all(args.work / "calibrated", me, args.processes)
    folder = args.work / me
    with Watch(recipe, math.inf, args.output / f"{me}.jsonl"):
        pretraining.pretrain(recipe, folder, pretraining_key(recipe, images.fingerprint))
    return folder / pretraining.CHECKPOINT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="image folder with train and val")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--method", choices=[*PRETEXTS, "random"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=225.0)
    parser.add_argument("--processes", type=int, default=1, help="that are started side by side")
    args = parser.parse_args()
    for folder in (args.work, args.output):
        folder.mkdir(parents=True, exist_ok=True)
    data, me = Data(name=Path(args.data).name, root=args.data), f"{args.method}-{args.seed}"
    subject: Any = RandomInit(arch=ARCH, pretext=PUBLISHED)
    if args.method != "random":
        load_images(data, args.work)
        pretraining.Augmented = Places  # type: ignore[misc, assignment]
        subject = FromCheckpoint(path=str(train(args, data, me)))
    blocks = tuple(range(1, OPTIONS["depth"] + 1))
    probe = LinearProbe(
        feature="mean_patch", blocks=blocks, augment="none", crop_pct=1.0, training=linear(30, 3, 1024, 1.0)
    )
    benchmark = Benchmark(
        name="probes",
        subjects={me: subject},
        evaluators={"knn": KNN(feature="mean_patch", blocks=blocks, crop_pct=1.0), "linear": probe},
        data=data,
        machine=Machine(workers=1, micro_batch=512),
        seed=args.seed,
        executor=LocalExecutor(slots=1),
    )
    print(run(benchmark, args.output / me))


if __name__ == "__main__":
    main()
