"""One picture of CIM at work: context, exemplars, true and predicted maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cim_bench import registry
from cim_bench.checkpoint import META, PRETEXT, read_meta, read_tensors
from cim_bench.data.transforms import seed_all
from cim_bench.pretrain.cim import CIM, CIMInputs, CIMModel
from cim_bench.pretrain.exemplars import correlation_maps


def visualize(checkpoint: Path, images: Sequence[Path], output: Path, *, seed: int = 0) -> None:
    """Draw a row an image: the context, then each exemplar over its true and its predicted map.

    Args:
        checkpoint: A folder that ``cim-bench pretrain`` made.
        images: Image files.
        output: The PNG to write.
        seed: Of the base views and exemplars.

    Raises:
        ValueError: If the checkpoint has no pretext weights, or an image cannot be read.
    """
    model = load_cim(checkpoint)
    batches = [_sample(model, path, seed) for path in images]
    batch = {name: torch.stack([sample[name] for sample in batches]) for name in batches[0]}
    with torch.no_grad():
        predicted = model.predict(batch)[0].sigmoid()
    maps = correlation_maps(batch["boxes"], model.side, model.settings.context_size).float()
    _draw(batch["context"], batch["exemplars"], maps, predicted, images, output)


def load_cim(checkpoint: Path) -> CIMModel:
    """The whole pretext model of a checkpoint, in eval mode.

    Raises:
        ValueError: If the checkpoint is not of CIM or holds the encoder alone.
    """
    meta = read_meta(checkpoint)
    if meta.method != CIM.method or meta.kind != "backbone" or not (checkpoint / PRETEXT).exists():
        raise ValueError(
            f"{checkpoint} has no CIM decoder ({PRETEXT}); {META} says {meta.method} {meta.kind}; "
            f"give a checkpoint that `cim-bench pretrain` made with CIM"
        )
    raw = {k: tuple(v) if isinstance(v, list) else v for k, v in meta.recipe["pretext"].items() if k != "type"}
    pretext: CIM = registry.load(registry.PRETEXTS["cim"])(**raw)
    model = replace(pretext, cut_on="worker").build(meta.arch)
    model.load_state_dict(read_tensors(checkpoint / PRETEXT))
    return model.eval()


def _sample(model: CIMModel, path: Path, seed: int) -> dict[str, Tensor]:
    try:
        image = Image.open(path).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"cannot read image {path}: {error}") from error
    seed_all(seed, str(path.name))
    return CIMInputs(model.settings, model.side)(image)


def _draw(
    context: Tensor, exemplars: Tensor, maps: Tensor, predicted: Tensor, names: Sequence[Path], output: Path
) -> None:
    rows, count = exemplars.shape[:2]
    figure, axes = plt.subplots(3 * rows, count + 1, figsize=(1.5 * (count + 1), 4.6 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row in range(rows):
        whole = _pixels(context[row])
        axes[3 * row][0].imshow(whole)
        axes[3 * row][0].set_title(names[row].name[:24], fontsize=7)
        for line, text in enumerate(("exemplars", "true maps", "predicted maps")):
            axes[3 * row + line][1].set_title(text, fontsize=8, loc="left")
        for e in range(count):
            true, guess = maps[row, e].numpy(), predicted[row, e].numpy()
            iou = ((true > 0.5) & (guess > 0.5)).sum() / max(1, ((true > 0.5) | (guess > 0.5)).sum())
            axes[3 * row][e + 1].imshow(_pixels(exemplars[row, e]))
            axes[3 * row + 1][e + 1].imshow(_shade(whole, true))
            axes[3 * row + 2][e + 1].imshow(_shade(whole, guess))
            axes[3 * row + 2][e + 1].text(
                0.5,
                -0.03,
                f"IoU {iou:.2f}",
                transform=axes[3 * row + 2][e + 1].transAxes,
                fontsize=7,
                ha="center",
                va="top",
            )
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def _pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _shade(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The image where the map is high, darkened where it is low, tinted by the map."""
    w = weight[..., None]
    tint = np.array([255.0, 90.0, 0.0])
    shaded: np.ndarray = (image * (0.35 + 0.35 * w) + 0.3 * w * tint).clip(0, 255).astype(np.uint8)
    return shaded
