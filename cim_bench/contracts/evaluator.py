"""What a protocol is: a frozen dataclass of its knobs that turns a model into measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from cim_bench.contracts.context import Context
from cim_bench.contracts.parts import Part
from cim_bench.data.images import ImageSet
from cim_bench.engine.inference import ImageBatch, Transform
from cim_bench.models.backbone import Backbone
from cim_bench.records.facets import Facets
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import Count
from cim_bench.spec import Data, PlugIn


class Fingerprinted(Protocol):
    """A split of a data set."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that a number may depend on."""
        ...


class Evaluator(PlugIn):
    """Contract of a protocol; subclasses are frozen keyword-only dataclasses whose fields are its knobs.

    Attributes:
        version: Bumped whenever numbers can move.
        needs: What `run` is given; a ``classifier`` is the checkpoint that fine-tuning saved.
        opens: What opens the sets that it `reads`, called with a `Data` and a split; it has a ``fingerprint``.
    """

    version: ClassVar[int]
    needs: ClassVar[Literal["backbone", "classifier"]]
    opens: ClassVar[Callable[[Data, str], Fingerprinted]] = ImageSet

    def run(self, model: Backbone, ctx: Context) -> Iterator[Measurement]:
        """Measure `model`; raw values with exact counts."""
        raise NotImplementedError

    def reads(self, data: Data) -> tuple[tuple[Data, str], ...]:
        """Sets and splits that the numbers rest on, given the benchmark's data; they enter the job's key."""
        return ((data, data.train_split), (data, data.val_split))

    def identity(self, data: Data) -> Mapping[str, str]:  # noqa: ARG002  those that need nothing else
        """What else can move the numbers, by name: a file that comes with a package, a version of code that is shared.

        It enters the job's key and its records. Settings, `version` and the content of what `reads` names are there
        already; versions of packages are in every record and not in the key.

        Args:
            data: The benchmark's.
        """
        return {}


class SetEvaluator(Evaluator):
    """Contract of a protocol that only looks at a model's answers on image sets.

    The runner makes one pass over each part for all subjects, decodes each image once, and keeps every
    finished part, so that a killed run goes on from there (`cim_bench.jobs.passes`).
    """

    def parts(self, ctx: Context) -> Sequence[Part]:
        """The passes, in order; those of the stratified subset first, where there is one."""
        raise NotImplementedError

    def check(self, model: Backbone, ctx: Context) -> None:
        """Refuse a model that the sets do not fit, before anything is decoded.

        Raises:
            ValueError: Saying what does not fit.
        """

    def transform(self, model: Backbone) -> Transform:
        """From a decoded image to what `model` takes; equal transforms are applied once for all models."""
        raise NotImplementedError

    def answers(
        self, part: Part, models: Mapping[str, Backbone], pixels: Tensor, batch: ImageBatch
    ) -> Iterator[tuple[str, Facets, Tensor]]:
        """Model name, facets and predicted labels (B,) for one batch; the same ones in the same order for every batch.

        Args:
            part: What is being passed over.
            models: Those that share a transform, by name.
            pixels: (B, 3, H, W) uint8, after that transform.
            batch: Labels and places of the images.
        """
        raise NotImplementedError

    def measure(self, counts: Sequence[Count], ctx: Context) -> Iterator[Measurement]:
        """Measurements from correct answers and number of images, by facets."""
        raise NotImplementedError
