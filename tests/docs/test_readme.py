"""README and the pages show commands that exist, and a notebook's lines that run."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import cim_bench.evals.knn
from cim_bench.cli.arguments import build_parser
from cim_bench.models.backbone import create_net
from cim_bench.models.checkpoint import Meta, save_checkpoint
from cim_bench.spec import Arch, Data
from tests.docs.rooms import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = sorted(
    {
        re.sub(r"\s+#.*", "", line).replace(" ...", "").strip()
        for page in PAGES
        for line in re.sub(r" \\\n +", " ", page.read_text()).splitlines()
        if re.match(r" {4}(?:\w+=\S+ )?(?:cim-bench|accelerate launch) ", line)
    }
)


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line)
    start = next(place for place, word in enumerate(words) if word in ("cim-bench", "$(command -v cim-bench)"))
    options, fields = build_parser().parse_known_args(words[start + 1 :])
    assert not fields or options.fields


def test_there_are_commands() -> None:
    assert len(LINES) > 20
    assert {line.split()[1] for line in LINES} >= {"clean", "compare", "data", "evaluate", "inspect", "list", "run"}


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
