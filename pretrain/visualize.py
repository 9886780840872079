"""Draw the inputs and predictions of a pretext model on some images, as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cim_bench import registry
from cim_bench.common.seeds import seed_all
from cim_bench.contracts.pretext import Panel, Pretext, PretextInputs, PretextModel
from cim_bench.models.checkpoint import META, PRETEXT, read_meta, read_tensors
from cim_bench.models.key_contract import load_exact

matplotlib.use("Agg")
PanelLines = list[list[Panel | None]]


def visualize(checkpoint: Path, images: Sequence[Path], output: Path, *, seed: int = 0) -> None:
    """Draw the inputs and predictions of a checkpoint's pretext model.

    Args:
        checkpoint: A folder that ``cim-bench pretrain`` made.
        images: Image files.
        output: The PNG to write.
        seed: Of the crops, masks and exemplars.

    Raises:
        ValueError: If the checkpoint has no pretext weights, or an image cannot be read.
    """
    model, inputs = load_pretext(checkpoint)
    samples = [_sample(inputs, path, seed) for path in images]
    _draw(model.pictures(torch.utils.data.default_collate(samples)), [path.name for path in images], output)


def load_pretext(checkpoint: Path) -> tuple[PretextModel, PretextInputs]:
    """The whole pretext model of a checkpoint, in eval mode, and what makes its inputs.

    Raises:
        ValueError: If the checkpoint holds the encoder alone, or its pretext is not installed.
    """
    meta = read_meta(checkpoint)
    if meta.kind != "backbone" or "pretext" not in meta.recipe or not (checkpoint / PRETEXT).exists():
        raise ValueError(
            f"{checkpoint} has no pretext decoder ({PRETEXT}); {META} says {meta.method} {meta.kind}; "
            "give a checkpoint that `cim-bench pretrain` made"
        )
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in meta.recipe["pretext"].items()}
    name, known = fields.pop("type"), registry.choices("pretexts").values()
    target = next((path for path in known if path.rpartition(":")[2] == name), None)
    if target is None:
        raise ValueError(f"{checkpoint / META} names the pretext {name}; install the package that registers it")
    pretext: Pretext = registry.load(target)(**fields)
    model = pretext.build(meta.arch)
    load_exact(model, read_tensors(checkpoint / PRETEXT), what=str(checkpoint / PRETEXT))
    return model.eval(), pretext.inputs(meta.arch)


def _sample(inputs: PretextInputs, path: Path, seed: int) -> dict[str, Tensor]:
    try:
        image = Image.open(path).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"cannot read image {path}: {error}") from error
    seed_all(seed, str(path.name))
    return inputs(image)


def _draw(pictures: Sequence[PanelLines], names: Sequence[str], output: Path) -> None:
    lines = [line for picture in pictures for line in picture]
    columns = max(len(line) for line in lines)
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.8 * columns, 2.0 * len(lines)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for line, row in zip(lines, axes, strict=True):
        for panel, axis in zip(line, row, strict=False):
            if panel is not None:
                axis.imshow(panel.image.permute(1, 2, 0).numpy())
                axis.set_title(panel.title, fontsize=8)
    first = 0
    for picture, name in zip(pictures, names, strict=True):
        style = {"rotation": 90, "fontsize": 8, "ha": "right", "va": "center"}
        axes[first][0].text(-0.04, 0.5, name[:24], transform=axes[first][0].transAxes, **style)
        first += len(picture)
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
    plt.close(figure)
