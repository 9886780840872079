"""Features of public files through `open_checkpoint`, against the public code itself.

Needs checkouts: ``CIM_BENCH_PUBLIC_CIM=FOLDER`` and so on. Real sizes are ``-m slow``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from cim_bench.models.backbone import load_backbone
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.spec import FromCheckpoint
from tests.golden.weights import images
from tests.parity.public_formats import COMMITS, all_cases, checkout, make

CASES = all_cases()


@pytest.mark.parametrize(
    "tiny", [pytest.param(True, id="tiny"), pytest.param(False, id="real", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_features_are_those_of_the_public_code(name: str, tiny: bool, tmp_path: Path) -> None:
    case = CASES[name]
    folder, size = checkout(case.repo), case.pixels[0 if tiny else 1]
    if folder is None:
        pytest.skip(f"CIM_BENCH_PUBLIC_{case.repo} names no checkout of {COMMITS[case.repo]}")
    if not size:
        pytest.skip("the public code makes no small model of this format")
    packed, wanted, _ = make(case, folder, tiny=tiny)
    file = tmp_path / "public.pth"
    torch.save(packed, file)
    part = f"#{case.part}" if case.part else ""
    checkpoint, report = open_checkpoint(
        FromCheckpoint(
            path=f"{file}{part}",
            method=case.method,
            arch=case.arch if tiny else "",
            image_size=size,
            normalisation=case.normalisation,
        )
    )
    assert report.format == (case.format or name)
    assert (checkpoint.meta.mean, checkpoint.meta.std) == (case.mean, case.std)
    timm.layers.set_fused_attn(case.fused)  # read when the network is made
    try:
        model = load_backbone(checkpoint, what=name)
    finally:
        timm.layers.set_fused_attn(True)
    for kind, output in wanted.items():
        ours = model(images(size)) if kind == "logits" else model.feature(images(size), kind)
        difference = float((ours - output).abs().max())
        print(f"{name}, {checkpoint.meta.arch}, {kind}: largest difference {difference:.1e}")
        assert float(output.abs().mean()) > 0.01
        assert difference < 1e-4
