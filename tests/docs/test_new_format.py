"""The format of docs/new_format.md, as it stands there: from its file, and by an entry point."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import torch

from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.spec import FromCheckpoint
from tests.unit.cim_bench.models.formats.public_files import FILES, TINY, under

PAGE = Path(__file__).parents[2] / "docs" / "new_format.md"
ARCH = f"vit_tiny_patch16_224{TINY}"


@pytest.fixture
def code() -> str:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = under("student.", FILES["DINO ViT encoder"].build(0).state_dict()) | {"projector.0.weight": torch.ones(2)}
    args = argparse.Namespace(projector_dim=8, clip_norm=True)
    torch.save({"state_dict": state, "args": args}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_from_its_file(code: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "my_format.py").write_text(code)
    opened, report = open_checkpoint(
        FromCheckpoint(path=str(checkpoint), arch=ARCH, format=str(tmp_path / "my_format.py"))
    )
    assert (report.format, opened.meta.method) == ("My project", "MyPretext")
    assert report.normalisation == "its args, clip_norm = True"
    assert report.unexpected == ("projector.0.weight",)


def test_by_an_entry_point(code: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no known format"):
        open_checkpoint(FromCheckpoint(path=str(checkpoint), arch=ARCH))
    (tmp_path / "my_formats_for_a_test.py").write_text(code)
    folder = tmp_path / "my_package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    points = "[cim_bench.formats]\nmy_project = my_formats_for_a_test:FORMAT\n"
    (folder / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    _, report = open_checkpoint(FromCheckpoint(path=str(checkpoint), arch=ARCH))
    assert report.format == "My project"
    assert report.evidence == "its keys, its settings (projector_dim)"
