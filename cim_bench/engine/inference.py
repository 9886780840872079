"""Outputs of models on an image set; each image is decoded once for all models and counted exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import torch
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cim_bench.common.progress import Meter
from cim_bench.data.images import ImageSet
from cim_bench.engine.devices import make_accelerator, one_thread
from cim_bench.spec import Machine

Transform: TypeAlias = Callable[[Image.Image], Tensor]
K = TypeVar("K", bound=Hashable)
ADVICE = "its weights or the normalisation of its checkpoint are damaged, or its training diverged"


class NonFiniteOutputError(ArithmeticError):
    """A model gave NaN or infinity.

    Attributes:
        model: Which of those that share a pass; empty if there is one alone.
    """

    def __init__(self, text: str, model: str = "") -> None:
        super().__init__(text)
        self.model = model


class LabelledImages(Protocol):
    """What a pass goes over: an `ImageSet`, or another set whose labels are numbers or tensors of one shape."""

    name: str
    split: str

    def __len__(self) -> int: ...

    def image_id(self, index: int) -> str:
        """The image's name."""

    def take(self, places: Sequence[int]) -> Self:
        """The images at some places of this set, in the given order."""

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """The decoded RGB image and its label."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a set, once for each transform that a model asked for.

    Attributes:
        indices: (B,) places in the set, on the CPU.
        labels: (B, ...) on the device.
        images: (B, 3, H, W) uint8 on the device, by transform.
    """

    indices: Tensor
    labels: Tensor
    images: Mapping[Transform, Tensor]


class _ProcessShare(Dataset[tuple[int, int, Any]]):
    """This process's images, each exactly once: rank r of W takes r, r+W, r+2W, ..."""

    def __init__(self, images: LabelledImages, transforms: Sequence[Transform], rank: int, processes: int) -> None:
        self.images, self.transforms = images, transforms
        self.indices = range(rank, len(images), processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[int, int, list[Tensor]]:
        index = self.indices[position]
        image, label = self.images.read(index)
        return index, label, [transform(image) for transform in self.transforms]


def image_batches(
    images: LabelledImages, transforms: Sequence[Transform], *, machine: Machine, batch_size: int | None = None
) -> Iterator[ImageBatch]:
    """This process's images of a set, each decoded once.

    Args:
        images: The set.
        transforms: From a decoded image to (3, H, W) uint8; equal ones are applied once.
        machine: Device and workers.
        batch_size: Images in one batch; the machine's micro-batch by default.
    """
    engine = make_accelerator(machine)
    distinct = list(dict.fromkeys(transforms))
    share = _ProcessShare(images, distinct, engine.process_index, engine.num_processes)
    loader = DataLoader(
        share,
        batch_size=batch_size or machine.micro_batch,
        num_workers=machine.loader_processes,
        worker_init_fn=one_thread,
    )
    with Meter(f"{images.name}/{images.split}", len(share), show=engine.is_main_process) as meter:
        for index, label, pixels in loader:
            on_device = {t: p.to(engine.device) for t, p in zip(distinct, pixels, strict=True)}
            yield ImageBatch(index, label.to(engine.device), on_device)
            meter.step(len(index))


def run_pass(
    compute: Callable[[ImageBatch], Iterable[tuple[K, Tensor]]],
    images: ImageSet,
    transforms: Sequence[Transform],
    *,
    machine: Machine,
    batch_size: int | None = None,
) -> tuple[dict[K, Tensor], Tensor]:
    """One pass over a set.

    Args:
        compute: Named outputs (B, ...) of one batch; the same names for every batch.
        images: The set.
        transforms: From a decoded image to (3, H, W) uint8; equal ones are applied once.
        machine: Device and workers.
        batch_size: Images in one pass; the machine's micro-batch by default. It does not change results.

    Returns:
        Outputs (N, ...) on the CPU by name and labels (N,), both in the set's order, on every process.
    """
    indices: list[Tensor] = []
    labels: list[Tensor] = []
    outputs: dict[K, list[Tensor]] = {}
    for batch in image_batches(images, transforms, machine=machine, batch_size=batch_size):
        indices.append(batch.indices)
        labels.append(batch.labels.cpu())
        for name, values in compute(batch):
            outputs.setdefault(name, []).append(values.detach().cpu())
    order = _gather(torch.cat(indices))
    assert order.sort().values.equal(torch.arange(len(images))), "an image was lost or counted twice"
    place = order.argsort()
    named = {name: _gather(torch.cat(parts))[place] for name, parts in outputs.items()}
    return named, _gather(torch.cat(labels))[place]


@torch.no_grad()
def run_models(
    functions: Mapping[str, Callable[[Tensor], Tensor]],
    images: ImageSet,
    transform: Transform,
    *,
    machine: Machine,
    batch_size: int | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Apply every function to every image.

    Args:
        functions: From images (B, 3, H, W) in [0, 1] on the device to outputs (B, ...).
        images: The set.
        transform: From a decoded image to (3, H, W) uint8.
        machine: Device and workers.
        batch_size: Images in one pass; the machine's micro-batch by default. It does not change results.

    Returns:
        Outputs (N, ...) on the CPU by function name and labels (N,), both in the set's order, on every process.

    Raises:
        NonFiniteOutputError: Naming the set and the first image whose output is not finite.
    """

    def compute(batch: ImageBatch) -> Iterable[tuple[str, Tensor]]:
        pixels = batch.images[transform].float() / 255
        return ((name, function(pixels).float()) for name, function in functions.items())

    outputs, labels = run_pass(compute, images, [transform], machine=machine, batch_size=batch_size)
    for values in outputs.values():
        check_finite(values, images)
    return outputs, labels


def check_finite(outputs: Tensor, images: LabelledImages, what: str = "outputs") -> None:
    """Refuse numbers that are none: the largest of them would be class 0, and count as an answer.

    Args:
        outputs: (N, ...) of a model, in the set's order.
        images: The set.
        what: These outputs, for the message.

    Raises:
        NonFiniteOutputError: Naming the set and the first image whose output is not finite.
    """
    finite = torch.isfinite(outputs).flatten(1).all(dim=1) if outputs.ndim > 1 else torch.isfinite(outputs)
    if not bool(finite.all()):
        first = images.image_id(int((~finite).int().argmax()))
        raise NonFiniteOutputError(
            f"the model's {what} on {images.name}/{images.split} are not finite for {int((~finite).sum()):,} of "
            f"{len(finite):,} images, the first is {first}; {ADVICE}"
        )


@contextlib.contextmanager
def watched(models: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Watch all outputs of some models.

    Yields:
        For each model a flag on its device that is true as long as all of its outputs were finite.
    """
    finite: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(_model: nn.Module, _inputs: Any, output: Tensor) -> None:
            found = torch.isfinite(output.detach()).all()
            finite[name] = finite[name] & found if name in finite else found

        return look

    handles = [model.register_forward_hook(watch(name)) for name, model in models.items()]
    try:
        yield finite
    finally:
        for handle in handles:
            handle.remove()


def _gather(values: Tensor) -> Tensor:
    """Concatenate over processes; lengths may differ."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    return torch.cat(gather_object([values]))


@contextlib.contextmanager
def fp32_eval(model: nn.Module) -> Iterator[None]:
    """A model in eval mode and fp32 whose weights want no gradients; left as it was found."""
    training, device = model.training, next(model.parameters()).device
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        model.train(training)
        for parameter in wanted:
            parameter.requires_grad_(True)
