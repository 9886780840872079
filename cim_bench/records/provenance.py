"""Which code, packages and device made a number."""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import features

PACKAGES = (
    "cim-bench", "torch", "torchvision", "timm", "accelerate", "pillow", "numpy", "datasets", "torchattacks",
    "robustbench", "pyautoattack", "detectron2",
)  # fmt: skip


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def describe_code() -> dict[str, Any]:
    """Commit, dirtiness and package versions, as `Provenance` takes them."""
    commit, dirty = git_state(Path(__file__).parent)
    return {"commit": commit, "dirty": dirty, "packages": package_versions()}


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that can move a number, as far as they are installed, and of Pillow's JPEG library."""
    jpeg = features.version("libjpeg_turbo"), features.version("jpg")
    found = {"python": platform.python_version(), "libjpeg": f"turbo {jpeg[0]}" if jpeg[0] else str(jpeg[1])}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> tuple[str, bool]:
    """Commit of the checkout that holds `folder` and whether it has changes; empty outside of one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        tracked = git("ls-files", "--error-unmatch", "provenance.py")
        return (git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))) if tracked else ("", False)
    except OSError:  # no git on this machine
        return "", False
