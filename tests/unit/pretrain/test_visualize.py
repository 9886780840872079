"""One figure for every pretext: layout, captions, and checkpoints that cannot be drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cim_bench.benchmark import Pretraining
from cim_bench.contracts.pretext import Panel, Pretext
from cim_bench.models.checkpoint import META, Meta, save_checkpoint
from cim_bench.pretrain.cim.method import CIM
from cim_bench.pretrain.mae import MAE
from cim_bench.pretrain.simmim import SimMIM
from cim_bench.pretrain.visualize import _draw, load_pretext, visualize
from cim_bench.spec import Arch, Data, Training, settings

PRETEXTS = {
    "cim": CIM(context_size=32, exemplar_size=16, num_exemplars=3, decoder_dim=48, decoder_heads=4),
    "mae": MAE(decoder_dim=32, decoder_depth=1, decoder_heads=4),
    "simmim": SimMIM(mask_patch=8),
}


def save(pretext: Pretext, arch: Arch, folder: Path) -> Path:
    """A checkpoint as pre-training saves it, of fresh weights."""
    torch.manual_seed(0)
    model = pretext.build(arch)
    recipe = Pretraining(
        pretext=pretext, arch=arch, data=Data(), training=Training(epochs=1, effective_batch=1, base_lr=1.0)
    )
    meta = Meta(kind="backbone", method=pretext.method, arch=arch, epochs=1, seed=0, recipe=settings(recipe))
    save_checkpoint(folder, model.backbone_state("online"), meta, pretext=model.state_dict())
    return folder


@pytest.fixture(params=PRETEXTS)
def pretext(request: pytest.FixtureRequest) -> Pretext:
    return PRETEXTS[request.param]


@pytest.fixture(scope="module")
def images(photos_root: Path) -> list[Path]:
    return [sorted((photos_root / "val" / label).iterdir())[0] for label in ("chelsea", "coffee")]


def test_a_checkpoint_gives_its_pretext_back(pretext: Pretext, tiny_arch: Arch, tmp_path: Path) -> None:
    model, inputs = load_pretext(save(pretext, tiny_arch, tmp_path / "made"))
    torch.manual_seed(0)
    for name, value in pretext.build(tiny_arch).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert model.settings == pretext  # type: ignore[comparison-overlap]
    assert type(inputs) is type(pretext.inputs(tiny_arch))
    assert not model.training


def test_every_pretext_draws_lines_of_panels(
    pretext: Pretext, tiny_arch: Arch, images: list[Path], tmp_path: Path
) -> None:
    checkpoint = save(pretext, tiny_arch, tmp_path / "made")
    model, inputs = load_pretext(checkpoint)
    sample = inputs(Image.open(images[0]).convert("RGB"))
    pictures = model.pictures(torch.utils.data.default_collate([sample, sample]))
    assert len(pictures) == 2
    panels = [panel for line in pictures[0] for panel in line if panel is not None]
    assert len(panels) >= 3
    for panel in panels:
        assert panel.image.dtype == torch.uint8
        assert panel.image.ndim == 3
        assert len(panel.image) == 3
    assert any(panel.title for panel in panels)
    visualize(checkpoint, images, tmp_path / "new" / "seen.png")
    with Image.open(tmp_path / "new" / "seen.png") as figure:
        columns = max(len(line) for line in pictures[0])
        assert figure.width == pytest.approx(1.8 * columns * 130, abs=2)
        assert np.asarray(figure.convert("L")).std() > 10


def test_same_seed_same_picture(tiny_arch: Arch, images: list[Path], tmp_path: Path) -> None:
    checkpoint = save(PRETEXTS["mae"], tiny_arch, tmp_path / "made")
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        visualize(checkpoint, images, tmp_path / f"{name}.png", seed=seed)
        drawn[name] = np.asarray(Image.open(tmp_path / f"{name}.png"))
    assert np.array_equal(drawn["a"], drawn["b"])
    assert not np.array_equal(drawn["a"], drawn["c"])


def test_empty_places_stay_empty(tmp_path: Path) -> None:
    black = Panel(torch.zeros(3, 8, 8, dtype=torch.uint8), "black")
    _draw([[[black, black], [None, black]]], ["one.png"], tmp_path / "out.png")
    drawn = np.asarray(Image.open(tmp_path / "out.png").convert("L"))
    half, quarter = drawn.shape[1] // 2, drawn.shape[0] // 2
    assert (drawn[quarter + 30 : -20, 20 : half - 20] == 255).all()
    assert (drawn[quarter + 30 : -20, half + 20 : -20] == 0).any()


def test_checkpoints_that_cannot_be_drawn(tiny_arch: Arch, images: list[Path], tmp_path: Path) -> None:
    made = save(PRETEXTS["mae"], tiny_arch, tmp_path / "made")
    alone = shutil.copytree(made, tmp_path / "alone")
    (alone / "pretext.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no pretext decoder \(pretext.safetensors\); meta.json says MAE backbone"):
        load_pretext(alone)
    with pytest.raises(ValueError, match="is not a cim-bench checkpoint"):
        load_pretext(tmp_path)
    for change, words in (({"type": "Jigsaw"}, "pretext Jigsaw; install"), ({"decoder_depth": 2}, "missing decoder_b")):
        meta = json.loads((made / META).read_text())
        meta["recipe"]["pretext"].update(change)
        del meta["seal"]
        meta["schema"] = 1  # without a seal, as before version 0.3.0
        other = shutil.copytree(made, tmp_path / words[:8])
        (other / META).write_text(json.dumps(meta))
        with pytest.raises(ValueError, match=words):
            load_pretext(other)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read image .*broken.png"):
        visualize(made, [*images, broken], tmp_path / "seen.png")
