"""Build detectron2 for ``tox run -e detectron2``: from CIM_BENCH_DETECTRON2, else from its repository.

The variable is the path of a checkout, or what pip installs from (``git+file:///...``). Where neither can be had, this
says so, and the tests skip.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833"


def main() -> None:
    """Install it, unless it is installed."""
    if importlib.util.find_spec("detectron2") is not None:
        return
    source = os.environ.get("CIM_BENCH_DETECTRON2") or REPOSITORY
    with tempfile.TemporaryDirectory() as folder:
        place = source
        if Path(source, "setup.py").is_file():  # its setup.py writes into the checkout
            place = str(
                shutil.copytree(source, Path(folder, "detectron2"), ignore=shutil.ignore_patterns(".git", "build"))
            )
        pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", place]
        if subprocess.run(pip, check=False).returncode:
            print(
                f"detectron2 could not be built from {source}, so its tests skip: set CIM_BENCH_DETECTRON2 to the path "
                "of a checkout"
            )


if __name__ == "__main__":
    main()
