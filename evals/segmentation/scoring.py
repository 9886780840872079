"""Scores a segmentation network on a split: sliding windows and whole images, from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cim_bench.common.progress import Meter
from cim_bench.data.segmentation import SegmentationSet
from cim_bench.data.transforms import to_uint8
from cim_bench.engine.devices import make_accelerator, one_thread
from cim_bench.engine.inference import ADVICE, NonFiniteOutputError
from cim_bench.evals.metrics import confusion_matrix
from cim_bench.evals.segmentation.transforms import resize_to_bound
from cim_bench.evals.segmentation.windows import CLASSES_AT_ONCE, Box, answer, boxes, mean_logits
from cim_bench.records.confusions import Cells, to_cells
from cim_bench.records.facets import Facets
from cim_bench.spec import Machine, SlidingTest

WINDOWS_AT_ONCE = 8
WHOLE = "whole"
Keep = Callable[[int, Tensor], None]
Scored = list[tuple[Facets, list[Cells]]]  # by way of testing, one matrix an image in the set's order
Sample = tuple[int, Tensor, Tensor]  # place in the set, resized image (3, h, w) uint8, mask (H, W) uint8


class _ProcessShare(Dataset[Sample]):
    """This process's images and masks, each exactly once: rank r of W takes r, r + W, r + 2W, ..."""

    def __init__(self, images: SegmentationSet, test: SlidingTest, rank: int, processes: int) -> None:
        self.images, self.test = images, test
        self.indices = range(rank, len(images), processes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        index = self.indices[position]
        image, mask = self.images.read(index)
        return index, resize_to_bound(to_uint8(image), self.test.scale, antialias=self.test.antialias), mask


@dataclass
class _Image:
    """An image on its way: its windows, and those of their logits that are there.

    Attributes:
        index: Place in the set.
        mask: (H, W) uint8 at the original size.
        pixels: (3, h, w) in [0, 1], resized, at least as large as a window.
        size: Height and width before it was padded to a window's.
        places: Windows of every stride, each once.
        logits: (classes, h', w') of those that were computed.
    """

    index: int
    mask: Tensor
    pixels: Tensor
    size: tuple[int, int]
    places: list[Box]
    logits: dict[Box, Tensor] = field(default_factory=dict)


class Scorer:
    """Confusion matrices of one network, image by image.

    Args:
        network: From images (N, 3, H, W) in [0, 1] to logits (N, classes, h, w), on the device.
        classes: How many.
        mean: Colour of padding: the mean of the network's normalisation, in [0, 1].
        patch: Pixels that divide the sides of whole images.
        test: Windows.
        images: The split, for errors.
    """

    def __init__(
        self, network: nn.Module, *, classes: int, mean: Tensor, patch: int, test: SlidingTest, images: SegmentationSet
    ) -> None:
        self.network, self.classes, self.mean = network, classes, mean
        self.patch, self.test, self.images = patch, test, images

    def run(self, samples: Iterator[Sample], keep: Keep | None) -> Iterator[tuple[int, list[Cells]]]:
        """Place in the set and confusion matrices, in the order of `facets`, of each image."""
        waiting: list[_Image] = []
        queue: list[tuple[_Image, Box]] = []
        for index, pixels, mask in samples:
            image = self._open(index, pixels, mask)
            waiting.append(image)
            queue += [(image, place) for place in image.places]
            while len(queue) >= WINDOWS_AT_ONCE:
                self._compute(queue[:WINDOWS_AT_ONCE])
                queue = queue[WINDOWS_AT_ONCE:]
            while waiting and len(waiting[0].logits) == len(waiting[0].places):
                yield self._finish(waiting.pop(0), keep)
        if queue:
            self._compute(queue)
        for image in waiting:
            yield self._finish(image, keep)

    def facets(self) -> list[Facets]:
        """Of the measurements, in their order."""
        ways = [f"slide-{stride}" for stride in self.test.strides] + [WHOLE] * self.test.whole
        return [{"window": way} for way in ways]

    def ways(self, index: int, pixels: Tensor, mask: Tensor) -> Iterator[Tensor]:
        """Logits (classes, h, w) of one resized image (3, h, w), in the order of `facets`."""
        image = self._open(index, pixels, mask)
        for first in range(0, len(image.places), WINDOWS_AT_ONCE):
            self._compute([(image, place) for place in image.places[first : first + WINDOWS_AT_ONCE]])
        yield from (torch.cat(list(chunks)) for chunks in self._ways(image))

    def _open(self, index: int, pixels: Tensor, mask: Tensor) -> _Image:
        size = (pixels.shape[1], pixels.shape[2])
        crop = self.test.crop
        padded = self._padded(pixels.to(self.mean.device).float() / 255, max(crop, size[0]), max(crop, size[1]))
        height, width = padded.shape[1:]
        every = [place for stride in self.test.strides for place in boxes(height, width, crop, stride)]
        return _Image(index, mask, padded, size, list(dict.fromkeys(every)))

    def _padded(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pad below and to the right with the mean colour, which the network's normalisation turns into 0."""
        centred = pixels - self.mean
        return F.pad(centred, (0, width - pixels.shape[2], 0, height - pixels.shape[1])) + self.mean

    def _compute(self, queue: Sequence[tuple[_Image, Box]]) -> None:
        crop = self.test.crop
        batch = [image.pixels[:, top : top + crop, left : left + crop] for image, (top, left) in queue]
        for (image, place), logits in zip(queue, self._logits(torch.stack(batch), queue[0][0].index), strict=True):
            image.logits[place] = logits

    def _logits(self, images: Tensor, index: int) -> Tensor:
        logits: Tensor = self.network(images).float()
        if not bool(torch.isfinite(logits).all()):
            name = f"{self.images.name}/{self.images.split}"
            raise NonFiniteOutputError(
                f"the network's logits on {name} are not finite, first near {self.images.image_id(index)}; {ADVICE}"
            )
        return logits

    def _finish(self, image: _Image, keep: Keep | None) -> tuple[int, list[Cells]]:
        mask = image.mask.to(self.mean.device)
        size = (mask.shape[0], mask.shape[1])
        found = [answer(logits, size).to(torch.uint8) for logits in self._ways(image)]
        if keep is not None:
            keep(image.index, found[0])
        matrices = [confusion_matrix(mask, prediction, self.classes) for prediction in found]
        return image.index, [to_cells(matrix.cpu().numpy()) for matrix in matrices]

    def _ways(self, image: _Image) -> Iterator[Iterator[Tensor]]:
        """By each stride and as a whole, logits (classes, h, w) of the resized image, some classes after the other."""
        height, width = image.size
        for stride in self.test.strides:
            places = boxes(image.pixels.shape[1], image.pixels.shape[2], self.test.crop, stride)
            yield self._merged(image, places)
        if self.test.whole:
            sides = [-(-side // self.patch) * self.patch for side in (height, width)]
            pixels = self._padded(image.pixels[:, :height, :width], sides[0], sides[1])
            logits = self._logits(pixels[None], image.index)
            whole = F.interpolate(logits, size=(sides[0], sides[1]), mode="bilinear", align_corners=False)[0]
            yield iter([whole[:, :height, :width]])

    def _merged(self, image: _Image, places: Sequence[Box]) -> Iterator[Tensor]:
        height, width = image.size
        full = (image.pixels.shape[1], image.pixels.shape[2])
        windows = [torch.split(image.logits[place], CLASSES_AT_ONCE) for place in places]
        for logits in zip(*windows, strict=True):
            yield mean_logits(logits, places, full, self.test.crop)[:, :height, :width]


@torch.no_grad()
def score(
    network: nn.Module,
    images: SegmentationSet,
    test: SlidingTest,
    *,
    mean: Tensor,
    patch: int,
    machine: Machine,
    keep: Keep | None = None,
) -> Scored:
    """Confusion matrices of a network on a split; every image is decoded once and counted exactly once.

    Args:
        network: In eval mode, from images (N, 3, H, W) in [0, 1] to logits (N, classes, h, w).
        images: The split.
        test: Windows; each stride, and the whole image, is one of the returned ways.
        mean: (3, 1, 1) of the network's normalisation, on its device: the colour of padding.
        patch: Pixels that divide the sides of a whole image.
        machine: Device and workers.
        keep: Called with place in the set and prediction (H, W) of the first way, on the process that made it.

    Returns:
        For each way its facets, and a confusion matrix an image, in the set's order, on every process.

    Raises:
        NonFiniteOutputError: Naming the set and an image.
    """
    engine = make_accelerator(machine)
    share = _ProcessShare(images, test, engine.process_index, engine.num_processes)
    loader = DataLoader(share, batch_size=None, num_workers=machine.loader_processes, worker_init_fn=one_thread)
    scorer = Scorer(network, classes=len(images.classes), mean=mean, patch=patch, test=test, images=images)
    found: list[tuple[int, list[Cells]]] = []
    with Meter(f"{images.name}/{images.split}", len(share), show=engine.is_main_process) as meter:
        for pair in scorer.run(iter(loader), keep):
            found.append(pair)
            meter.step()
    if engine.num_processes > 1:
        found = list(gather_object(found))
    found.sort(key=lambda pair: pair[0])
    assert [index for index, _ in found] == list(range(len(images))), "an image was lost or counted twice"
    return [(facets, [cells[way] for _, cells in found]) for way, facets in enumerate(scorer.facets())]
