from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from cim_bench.models.backbone import create_net
from cim_bench.models.checkpoint import (
    META,
    PRETEXT,
    WEIGHTS,
    Meta,
    content_hash,
    load_checkpoint,
    read_meta,
    read_tensors,
    save_checkpoint,
)
from cim_bench.spec import Arch

NUMBERS = Meta(kind="backbone", method="toy", arch=Arch(name="toy"), epochs=1.5, seed=3)


@pytest.fixture
def state(tiny_arch: Arch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    made: dict[str, Tensor] = create_net(tiny_arch, num_classes=0).state_dict()
    return made


def test_a_checkpoint_survives_the_round_trip(state: dict[str, Tensor], tiny_arch: Arch, tmp_path: Path) -> None:
    meta = Meta(
        kind="classifier",
        method="CIM",
        arch=tiny_arch,
        epochs=300.0,
        seed=1,
        mean=(0.5, 0.5, 0.5),
        parent="abc",
        classes=("a", "b"),
        global_pool="avg",
        recipe={"seed": 1, "nested": {"k": [1, 2]}},
        key="k",
    )
    saved = save_checkpoint(tmp_path / "deep" / "ck", state, meta)
    assert saved == replace(meta, hash=content_hash(state))
    read = load_checkpoint(tmp_path / "deep" / "ck")
    assert read.meta == saved == read_meta(tmp_path / "deep" / "ck")
    assert read.state.keys() == state.keys()
    assert all(torch.equal(read.state[name], state[name]) for name in state)
    assert sorted(p.name for p in (tmp_path / "deep" / "ck").iterdir()) == [META, WEIGHTS]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["ck"]


def test_timm_takes_the_weights_as_they_are(state: dict[str, Tensor], tiny_arch: Arch, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ck", state, replace(NUMBERS, arch=tiny_arch))
    meta = json.loads((tmp_path / "ck" / META).read_text())["arch"]
    net = timm.create_model(meta["name"], num_classes=0, img_size=meta["image_size"], **meta["options"])
    net.load_state_dict(load_file(tmp_path / "ck" / WEIGHTS), strict=True)
    assert content_hash(net.state_dict()) == content_hash(state)


def test_the_whole_pretext_state_is_kept_beside_the_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ck", {"w": torch.ones(2)}, NUMBERS, pretext={"net.w": torch.zeros(3)})
    assert torch.equal(read_tensors(tmp_path / "ck" / PRETEXT)["net.w"], torch.zeros(3))
    assert load_checkpoint(tmp_path / "ck").state.keys() == {"w"}


def test_views_and_shared_memory_are_saved_as_plain_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base.t(), "b": base[0], "c": base, "scalar": torch.tensor(7)}
    save_checkpoint(tmp_path / "ck", state, NUMBERS)
    read = load_checkpoint(tmp_path / "ck").state
    assert all(torch.equal(read[name], state[name]) for name in state)


@given(st.dictionaries(st.text(), st.lists(st.floats(width=32), max_size=4), max_size=5), st.integers())
def test_the_hash_does_not_depend_on_the_order_of_keys(content: dict[str, list[float]], seed: int) -> None:
    items = [(name, torch.tensor(values)) for name, values in content.items()]
    shuffled = items[:]
    random.Random(seed).shuffle(shuffled)
    assert content_hash(dict(items)) == content_hash(dict(shuffled))


def test_the_hash_changes_with_name_value_type_and_shape() -> None:
    tensor = torch.tensor([1.0, 2.0, 3.0, 4.0])
    states = [
        {},
        {"w": tensor},
        {"v": tensor},
        {"w": tensor.double()},
        {"w": tensor.view(2, 2)},
        {"w": tensor.view(torch.int32)},
        {"w": tensor.flip(0)},
        {"w": tensor, "v": tensor},
        {"w": torch.nextafter(tensor, torch.tensor(9.0))},
    ]
    assert len({content_hash(state) for state in states}) == len(states)
    transposed = torch.arange(4.0).view(2, 2).t()
    assert content_hash({"w": transposed}) == content_hash({"w": transposed.contiguous()})


def damage_truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size // 2)


def damage_empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def damage_missing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def damage_one_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def damage_swap(folder: Path) -> None:
    save_checkpoint(folder.with_name("other"), {"w": torch.zeros(64)}, NUMBERS)
    (folder.with_name("other") / WEIGHTS).replace(folder / WEIGHTS)


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_empty, damage_missing, damage_one_bit, damage_swap], ids=lambda f: f.__name__
)
def test_damaged_missing_or_swapped_weights_are_refused_by_name(tmp_path: Path, damage: Any) -> None:
    save_checkpoint(tmp_path / "ck", {"w": torch.randn(64)}, NUMBERS)
    damage(tmp_path / "ck")
    with pytest.raises(ValueError, match=str(tmp_path / "ck" / WEIGHTS)):
        load_checkpoint(tmp_path / "ck")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b'{"arch": null}', b'{"arch": {"colour": 1}}', b"\xff\xfe"]
)
def test_a_folder_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / META).write_bytes(content)
    with pytest.raises(ValueError, match=f"{tmp_path} is not a cim-bench checkpoint"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="missing is not a cim-bench checkpoint"):
        read_meta(tmp_path / "missing")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ck", {"w": torch.zeros(1)}, NUMBERS)
    raw = json.loads((tmp_path / "ck" / META).read_text())
    (tmp_path / "ck" / META).write_text(json.dumps(raw | {"schema": 9}))
    with pytest.raises(ValueError, match="has schema 9, this version reads 1 and 2"):
        load_checkpoint(tmp_path / "ck")


def rewrite(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({k: v for k, v in {**raw, **changes}.items() if v != "removed"}))


@pytest.mark.parametrize(
    "change",
    [
        {"arch": {"name": "toy", "image_size": 448, "options": {}}},
        {"arch": {"name": "toy", "image_size": 224, "options": {"num_heads": 12}}},
        {"method": "MAE"},
        {"mean": [0.5, 0.5, 0.5]},
        {"std": [0.5, 0.5, 0.5]},
        {"epochs": 300},
        {"global_pool": "avg"},
        {"seed": 4},
        {"passed": {"x": 1}},
        {"key": "other"},
        {"seal": "0" * 64},
        {"seal": "removed"},
        {"schema": 1},
    ],
    ids=str,
)
def test_a_meta_file_that_was_changed_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ck", {"w": torch.zeros(1)}, NUMBERS)
    rewrite(tmp_path / "ck", **change)
    with pytest.raises(ValueError, match=r"meta\.json was changed after it was written; copy the checkpoint again"):
        read_meta(tmp_path / "ck")


def test_a_folder_of_before_the_seal_is_read_and_saved_with_one(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path / "ck", {"w": torch.zeros(1)}, NUMBERS)
    rewrite(tmp_path / "ck", schema=1, seal="removed")
    old = load_checkpoint(tmp_path / "ck")
    assert old.meta == replace(saved, schema=1)
    assert old.meta.identity == saved.identity
    assert save_checkpoint(tmp_path / "new", old.state, old.meta) == saved


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "many"},
        {"epochs": -1},
        {"epochs": True},
        {"kind": "head"},
        {"method": ""},
        {"seed": "0"},
        {"std": [0.2, 0.2, 0.0]},
        {"mean": [0.2, 0.2]},
        {"mean": ["a", "b", "c"]},
        {"classes": ["a"]},
        {"kind": "classifier"},
        {"arch": {"name": "toy", "image_size": 0}},
        {"hash": 7},
    ],
    ids=str,
)
def test_values_that_no_checkpoint_has_are_named(change: dict[str, Any], tmp_path: Path) -> None:
    """Also in a folder without a seal."""
    save_checkpoint(tmp_path / "ck", {"w": torch.zeros(1)}, NUMBERS)
    rewrite(
        tmp_path / "ck",
        schema=1,
        seal="removed",
        **({"arch": {"options": {}, **change["arch"]}} if "arch" in change else change),
    )
    name = "classes" if change == {"kind": "classifier"} else next(iter(change))
    with pytest.raises(ValueError, match=rf"meta\.json: {name} is .*, which no checkpoint has; copy the checkpoint"):
        read_meta(tmp_path / "ck")


def test_saving_twice_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ck"
    save_checkpoint(folder, {"w": torch.zeros(3)}, NUMBERS, pretext={"p": torch.zeros(1)})
    second = save_checkpoint(folder, {"w": torch.ones(3)}, NUMBERS)
    assert load_checkpoint(folder).meta == second
    assert sorted(p.name for p in folder.iterdir()) == [META, WEIGHTS]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_save_that_fails_keeps_the_older_checkpoint(tiny_disk: Path) -> None:
    folder = tiny_disk / "ck"
    first = save_checkpoint(folder, {"w": torch.zeros(100)}, NUMBERS)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_checkpoint(folder, {"w": torch.ones(100_000)}, NUMBERS)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_checkpoint(folder).meta == first
    assert list(tiny_disk.iterdir()) == [folder]
