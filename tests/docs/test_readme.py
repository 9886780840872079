"""README shows a notebook's lines that run; its commands are those of `test_commands.py`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import cim_bench.evals.knn
from cim_bench.models.backbone import create_net
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.spec import Arch, Data
from tests.docs.rooms import ROOT


def test_the_lines_for_a_notebook_run(tiny_arch: Arch, small_photos: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    meta = Meta(kind="backbone", method="random", arch=tiny_arch, epochs=None, seed=0)
    save_checkpoint(tmp_path / "checkpoint", create_net(tiny_arch, num_classes=0).state_dict(), meta)
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"\n\n((?: {4}import cim_bench\n)(?:(?: {4}.*)?\n)+)", text)
    given = {
        '"mae_pretrain_vit_base.pth"': repr(str(tmp_path / "checkpoint")),
        '"IMAGENET"': repr(small_photos.root),
        '"runs/mae"': repr(str(tmp_path / "out")),
        '["knn"]': "[cim_bench.evals.knn.KNN(k=(5, 20))]",  # of the 48 images that the bank holds
    }
    lines = textwrap.dedent(block)
    for shown, real in given.items():
        assert shown in lines
        lines = lines.replace(shown, real)
    *before, last_but_one, last = lines.strip().splitlines()
    namespace: dict[str, Any] = {}
    exec("\n".join(before), namespace)
    frame = eval(last_but_one, namespace)
    result = eval(last, namespace)
    assert isinstance(result, cim_bench.BenchmarkResult)
    assert result.failed == ()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["k"]) == [5, 20]
    assert set(frame["n"]) == {24}
    assert "k-NN top-1" in result._repr_markdown_()
