"""RobustBench's own code, imported and driven from here alone."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cim_bench.contracts.context import Context

TARGETS = 9  # of the targeted attacks in the standard version


def load_robustbench() -> Any:
    """``robustbench.eval``, imported although its dependencies go by another name.

    robustbench 1.1.1 requires ``pyautoattack`` and imports ``autoattack``, as the package was called before PyPI.

    Raises:
        ValueError: Naming the extra, if a package is missing; naming the remedy, if torchattacks is in the way: its
            wheel holds an old ``robustbench`` without ``benchmark``, and whichever is installed last stays.
    """
    try:
        import pyautoattack
        import pyautoattack.state

        sys.modules.setdefault("autoattack", pyautoattack)
        sys.modules.setdefault("autoattack.state", pyautoattack.state)
        from robustbench import eval as library
    except ImportError as error:  # pkg_resources, too: setuptools 81 dropped it
        raise ValueError(f"robustbench does not run here ({error}): pip install 'cim-bench[robustbench]'") from error
    if not hasattr(library, "benchmark"):
        raise ValueError(
            "torchattacks has put its own old robustbench over the real one: "
            "pip install --force-reinstall --no-deps robustbench==1.1.1"
        )
    return library


@dataclass
class StandardAttack:
    """AutoAttack as ``robustbench.eval.benchmark`` makes and calls it, with a seed, and what it found.

    pyautoattack 0.2.0 has no ``log_path``, calls ``bs`` ``batch_size``, and returns labels beside the images.
    """

    attacks: Sequence[str]
    seed: int
    classes: int
    adversarial: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(
        self, model: nn.Module, *, norm: str, eps: float, version: str, device: Any, log_path: None
    ) -> StandardAttack:
        """Make the attack, as ``robustbench.eval.benchmark`` does."""
        assert log_path is None, "progress goes to the logger"
        import pyautoattack

        self.made = pyautoattack.AutoAttack(model, norm=norm, eps=eps, version=version, device=device, seed=self.seed)
        self.made.attacks_to_run = list(self.attacks)
        for targeted in (self.made.apgd_targeted, self.made.fab):
            targeted.n_target_classes = min(TARGETS, self.classes - 1)  # it would sort past the last logit
        return self

    def run_standard_evaluation(self, images: Tensor, labels: Tensor, *, bs: int, state_path: None) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] that mislead the model where one was found, else the clean ones."""
        self.adversarial, _ = self.made.run_standard_evaluation(images, labels, batch_size=bs, state_path=state_path)
        return self.adversarial


@contextlib.contextmanager
def served(library: Any, images: Tensor, labels: Tensor, attack: StandardAttack) -> Iterator[None]:
    """``library.benchmark`` gets these images and this attack where it looks for its own."""
    own = library.load_clean_dataset, library.AutoAttack
    library.load_clean_dataset, library.AutoAttack = lambda *_: (images, labels), attack
    try:
        yield
    finally:
        library.load_clean_dataset, library.AutoAttack = own


class AttackMessages(logging.Handler):
    """AutoAttack's progress to stderr; its doubts about the evaluation to the job's footnotes, each kind once."""

    def __init__(self, ctx: Context) -> None:
        super().__init__()
        self.ctx = ctx
        self.kinds: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print progress; keep each kind of warning once."""
        text = record.getMessage()
        if record.levelno < logging.WARNING:
            if self.ctx.main:
                print(f"autoattack: {text}", file=sys.stderr, flush=True)
        elif (kind := re.sub(r"\d+", "", text)) not in self.kinds:  # the counts differ from batch to batch
            self.kinds.add(kind)
            self.ctx.warnings.append(f"AutoAttack: {text}")


@contextlib.contextmanager
def attack_messages(ctx: Context) -> Iterator[None]:
    """AutoAttack's logger speaks to `AttackMessages` while this lasts."""
    logger, handler = logging.getLogger("auto-attack"), AttackMessages(ctx)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def predict_by_library(library: Any, model: nn.Module, images: Tensor, labels: Tensor, ctx: Context) -> Tensor:
    """Predictions (N,) that RobustBench's own pass over images (N, 3, H, W) in [0, 1] counts."""
    seen: list[Tensor] = []

    def answer(batch: Tensor) -> Tensor:
        logits: Tensor = model(batch)
        seen.append(logits.argmax(dim=1).cpu())
        return logits

    library.clean_accuracy(answer, images, labels, batch_size=ctx.machine.micro_batch, device=device_of(model))
    return torch.cat(seen)


def device_of(model: nn.Module) -> torch.device:
    """Where the weights of a model are."""
    return next(model.parameters()).device
