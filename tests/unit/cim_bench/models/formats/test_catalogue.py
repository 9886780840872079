"""The table of formats: every public name becomes the right weight, and nothing is ever left random."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from cim_bench.data.classes import imagenet_wnids
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import content_hash
from cim_bench.models.formats.catalogue.formats import FORMATS
from cim_bench.models.formats.format import same_method
from cim_bench.models.formats.identify import identify
from cim_bench.models.formats.opening import checkpoint_kind, open_checkpoint
from cim_bench.models.formats.read import read_weights_file
from cim_bench.spec import Data, FromCheckpoint

from .public_files import FILES, State, part_of

BUILT = [name for name, file in FILES.items() if timm.is_model(file.net)]  # timm before 1.0.20 has no DINOv3
KINDS = {fmt.name: fmt.kind for fmt in FORMATS}


@functools.cache
def states(name: str) -> tuple[State, State]:
    own, other = (FILES[name].build(seed).state_dict() for seed in (0, 1))
    for state in (own, other):
        for key in [key for key in state if key.endswith("relative_position_index")]:  # a constant; of timm 1.0.9 alone
            del state[key]
    return {k: v.clone() for k, v in own.items()}, {k: v.clone() for k, v in other.items()}


def light(name: str) -> tuple[State, State]:
    """The same where values do not matter: every tensor of a ResNet is one number on disk."""
    if FILES[name].net != "resnet18":
        return states(name)
    own, other = ({k: v.flatten()[0].expand(v.shape) for k, v in state.items()} for state in states(name))
    return own, other


def source(name: str, path: Path) -> FromCheckpoint:
    return FromCheckpoint(path=f"{path}{part_of(name)}", **FILES[name].ask)


@pytest.fixture(scope="module")
def pixels(small_photos: Data) -> Tensor:
    files = sorted(Path(small_photos.root, "val").rglob("*.jpg"))[::8]
    images = [np.array(Image.open(file).resize((32, 32))) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def outputs(model: Backbone, images: Tensor) -> Tensor:
    return model(images) if model.num_classes else model.net.forward_features(model.normalize(images))


def test_every_format_has_a_file_here() -> None:
    assert sorted(fmt.name for fmt in FORMATS) == sorted(FILES)


@pytest.mark.parametrize("name", BUILT)
@torch.no_grad()
def test_a_public_file_gives_the_features_of_its_model(name: str, tmp_path: Path, pixels: Tensor) -> None:
    file, (state, _) = FILES[name], states(name)
    torch.save(file.pack(state, light(name)[1]), tmp_path / "public.pth")
    asked = source(name, tmp_path / "public.pth")
    checkpoint, report = open_checkpoint(asked)
    meta = checkpoint.meta
    assert (report.format, meta.method, meta.kind, meta.epochs) == (name, file.method, KINDS[name], file.epochs)
    assert (meta.mean, meta.std) == (file.mean, file.std)
    told = {"evidence": report.evidence, "normalisation": report.normalisation}
    assert meta.recipe == {"format": name, "file": f"public.pth{part_of(name)}"} | told
    assert ("as told" in report.evidence) == ("method" in file.ask)
    assert meta.hash == content_hash(checkpoint.state)
    assert meta.classes == (imagenet_wnids() if meta.kind == "classifier" else ())
    assert set(report.matched) == state.keys()
    assert not report.missing
    assert not report.resampled
    assert checkpoint_kind(asked) == meta.kind

    model = load_backbone(checkpoint, what=name)
    net = file.build(0)
    images = model.normalize(pixels)
    wanted = net(images) if model.num_classes else net.forward_features(images)  # type: ignore[operator]
    tolerance = {"rtol": 0.0, "atol": 0.0}
    if name.endswith("with registers"):
        # The public file splits the class token c into c - p and its position p, up to 1, and reading adds them: two
        # fp32 roundings of up to 2^-25, all other weights stay. The first norm divides by the token's spread of 0.014,
        # and attention hands the error on, so that later sums round otherwise too: 7e-6 at values of 3.4, by kernels up
        # to 1.05e-5 at 1.05. 1e-5 of a value is 84 units in its last place.
        token = state["cls_token"]
        assert {key for key in state if not state[key].equal(checkpoint.state[key])} <= {"cls_token"}
        torch.testing.assert_close(checkpoint.state["cls_token"], token, rtol=0, atol=2**-24)
        tolerance = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(outputs(model, pixels), wanted, **tolerance)
    assert len(wanted) == len(pixels) == 3


def broken(name: str) -> Iterator[tuple[str, Any]]:
    """A format's file with one needed key taken away, or misspelt, for some keys of every sort."""
    file, (state, other) = FILES[name], light(name)
    if file.net == "resnet18":
        needed = ["conv1.weight", "layer1.0.conv1.weight", "layer3.0.downsample.0.weight", "layer4.1.bn2.bias"]
        needed += ["bn1.running_var", "layer2.0.bn1.num_batches_tracked"] + (
            ["fc.weight"] if "fc.weight" in state else []
        )
    else:
        needed = [key for key in state if "blocks.1.m" not in key and "blocks.0." not in key]
    for number, key in enumerate(needed):
        less = {k: v for k, v in state.items() if k != key}
        changes = {"removed": less, "renamed": less | {f"{key}s": state[key]}}
        for label, changed in list(changes.items())[: 1 + (number % 3 == 0)]:
            packed = _pack(file, key, changed, other)
            if packed is not None:
                yield f"{key} {label}", packed


def _pack(file: Any, key: str, changed: State, other: State) -> Any:
    """As the format packs; it looks at some keys itself, which then cannot be missing."""
    try:
        return file.pack(changed, {k: v for k, v in other.items() if k != key or file.net == "resnet18"})
    except KeyError:
        return None


@pytest.mark.parametrize("name", BUILT)
def test_without_one_key_a_file_is_refused(name: str, tmp_path: Path) -> None:
    tried = 0
    for number, (what, packed) in enumerate(broken(name)):
        path = tmp_path / f"{number}.pth"
        torch.save(packed, path)
        with pytest.raises(ValueError, match=r"\d\.pth") as error:
            open_checkpoint(source(name, path))
        assert "\n" not in str(error.value), what
        tried += 1
    assert tried >= 8


@pytest.mark.parametrize("name", BUILT)
def test_a_key_too_much_is_refused(name: str, tmp_path: Path) -> None:
    file, (state, other) = FILES[name], light(name)
    extra = {"surprise.weight": torch.ones(2)}
    torch.save(file.pack(state | extra, other | extra), tmp_path / "public.pth")
    with pytest.raises(ValueError, match=r"surprise\.weight"):
        open_checkpoint(source(name, tmp_path / "public.pth"))


@pytest.mark.parametrize("name", BUILT)
def test_another_method_is_refused(name: str, tmp_path: Path) -> None:
    file, (state, other) = FILES[name], light(name)
    if (
        file.method in ("RSB A3", "AugReg", "DeiT")
        or FILES[name].ask.get("method") in ("SimCLR",)
        or name == "ResNet encoder"
    ):
        pytest.skip("such a file does not tell its method; the user's word counts")
    torch.save(file.pack(state, other), tmp_path / "public.pth")
    wrong = "MAE" if file.method != "MAE" else "SimMIM"
    with pytest.raises(ValueError, match=f"{wrong} was asked for|no file of {wrong}"):
        open_checkpoint(
            FromCheckpoint(path=f"{tmp_path / 'public.pth'}{part_of(name)}", **(file.ask | {"method": wrong}))
        )


@pytest.mark.parametrize("name", [name for name in BUILT if "method" in FILES[name].ask])
def test_where_keys_do_not_tell_the_method_it_must_be_named(name: str, tmp_path: Path) -> None:
    file, (state, other) = FILES[name], light(name)
    torch.save(file.pack(state, other), tmp_path / "public.pth")
    ask = {key: value for key, value in file.ask.items() if key != "method"}
    with pytest.raises(ValueError, match=f"those of .*{name.split(' ')[0]}.* name it with --method"):
        open_checkpoint(FromCheckpoint(path=str(tmp_path / "public.pth"), **ask))


@pytest.mark.parametrize("name", BUILT)
def test_no_file_is_taken_for_anothers_but_as_told(name: str, tmp_path: Path) -> None:
    file, (state, other) = FILES[name], light(name)
    torch.save(file.pack(state, other), tmp_path / "public.pth")
    read, part = read_weights_file(tmp_path / "public.pth"), part_of(name)[1:]
    accepted = set()
    for method in sorted({"", *(one.method for one in FILES.values())}):
        with contextlib.suppress(ValueError):
            found = identify(read, FORMATS, method=method, part=part)
            assert same_method(found.method, file.method) or "as told" in found.evidence, (method, found.evidence)
            accepted.add(found.method)
    own = next(fmt.method for fmt in FORMATS if fmt.name == name)
    assert not own or own in accepted
    asked = source(name, tmp_path / "public.pth")
    for arch in sorted({one.ask["arch"] for one in FILES.values() if "arch" in one.ask} - {file.ask.get("arch")}):
        with contextlib.suppress(ValueError):
            checkpoint, report = open_checkpoint(replace(asked, arch=arch))
            assert (report.format, checkpoint.meta.method) == (name, file.method)
