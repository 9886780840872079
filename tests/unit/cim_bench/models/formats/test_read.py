"""Reading files that nobody vouches for: what they are is said from their bytes, and nothing in them runs."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cim_bench.models.formats.read import read_weights_file


class Call:
    """Calls something when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = (function, arguments)

    def __reduce__(self) -> Any:
        return self.made


def sentence(path: Path, **options: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"x\.pth") as error:
            read_weights_file(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.pth"


@pytest.mark.parametrize("function", [eval, exec, __import__, os.system])
def test_what_a_malicious_file_calls_is_named(function: Any, file: Path) -> None:
    torch.save({"model": Call(function, "touch()")}, file)
    name = "posix.system" if function is os.system else function.__name__
    assert re.search(rf"it wants to make or call (builtins\.)?{name}, and", sentence(file))  # torch 2.6: builtins


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_is_told_and_never_opened(protocol: int, file: Path) -> None:
    victim = file.with_name("victim")
    file.write_bytes(pickle.dumps(Call(os.system, f"touch {victim}"), protocol=protocol))
    for allow in (False, True):
        assert "is a plain pickle (pickle.dump), which can run any code" in sentence(file, allow_pickle=allow)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is truncated or no PyTorch file; download it again"),
        (b"not torch", "it is truncated or no PyTorch file; download it again"),
        (b"PK\x03\x04", "it is truncated or no PyTorch file; download it again"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page and no checkpoint; download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer and no checkpoint"),
    ],
)
def test_no_checkpoint_at_all(content: bytes, words: str, file: Path) -> None:
    file.write_bytes(content)
    assert words in sentence(file)


def test_safetensors_under_another_name_are_read(file: Path) -> None:
    save_file({"a": torch.ones(2)}, file)
    assert read_weights_file(file).states[""]["a"].tolist() == [1, 1]


@pytest.mark.parametrize("call", [Call(Counter, 3), Call(np.dtype, "zzz"), Call(dict, 3), Call(argparse.Namespace, 3)])
def test_what_is_allowed_but_fails_is_a_sentence(call: Call, file: Path) -> None:
    torch.save({"model": call}, file)
    assert "cannot read" in sentence(file)


@pytest.mark.parametrize("state", [{0: torch.ones(1)}, {"a": torch.ones(1), 1: torch.ones(1)}])
def test_keys_are_names(state: dict[Any, Any], file: Path) -> None:
    for packed in (state, {"model": state}):
        torch.save(packed, file)
        assert "has no state dict (names and tensors)" in sentence(file)


@pytest.mark.parametrize(
    ("word", "make"),
    [
        ("sparse", lambda: torch.eye(3).to_sparse()),
        ("complex", lambda: torch.ones(3, dtype=torch.complex64)),
        ("meta-device", lambda: torch.ones(3, device="meta")),
        ("quantised", lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_tensors_that_no_network_takes_are_named(word: str, make: Callable[[], torch.Tensor], file: Path) -> None:
    torch.save({"model": {"fine.weight": torch.ones(3), "odd.weight": make()}}, file)
    assert f"has a {word} tensor, odd.weight; save dense real numbers" in sentence(file)
