"""cim-bench: one benchmark matrix for self-supervised vision checkpoints.

This is the one door: everything that people build on is a name of this module, and nothing heavy is imported before a
name is used. `evaluate`, `run`, `train_checkpoint` and `load_records` do the work from Python; the rest are the words
of a recipe, the contracts of plug-ins with what their authors need, and the types of results.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cim_bench.api import BenchmarkResult as BenchmarkResult
    from cim_bench.api import TrainedCheckpoint as TrainedCheckpoint
    from cim_bench.api import evaluate as evaluate
    from cim_bench.api import load_records as load_records
    from cim_bench.api import run as run
    from cim_bench.api import train_checkpoint as train_checkpoint
    from cim_bench.benchmark import Benchmark as Benchmark
    from cim_bench.benchmark import Pretraining as Pretraining
    from cim_bench.benchmark import RandomInit as RandomInit
    from cim_bench.contracts.context import Context as Context
    from cim_bench.contracts.evaluator import Evaluator as Evaluator
    from cim_bench.contracts.evaluator import SetEvaluator as SetEvaluator
    from cim_bench.contracts.executor import Executor as Executor
    from cim_bench.contracts.executor import Graph as Graph
    from cim_bench.contracts.executor import Job as Job
    from cim_bench.contracts.executor import JobResult as JobResult
    from cim_bench.contracts.features import FeatureEvaluator as FeatureEvaluator
    from cim_bench.contracts.parts import Part as Part
    from cim_bench.contracts.parts import split_parts as split_parts
    from cim_bench.contracts.pretext import Panel as Panel
    from cim_bench.contracts.pretext import Pretext as Pretext
    from cim_bench.contracts.pretext import PretextInputs as PretextInputs
    from cim_bench.contracts.pretext import PretextModel as PretextModel
    from cim_bench.contracts.queue import JobQueue as JobQueue
    from cim_bench.data.images import ImageSet as ImageSet
    from cim_bench.data.transforms import EvalTransform as EvalTransform
    from cim_bench.engine.inference import ImageBatch as ImageBatch
    from cim_bench.engine.inference import Transform as Transform
    from cim_bench.engine.inference import run_models as run_models
    from cim_bench.evals.metrics import accuracy as accuracy
    from cim_bench.executors.local import LocalExecutor as LocalExecutor
    from cim_bench.models.backbone import Backbone as Backbone
    from cim_bench.models.backbone import Feature as Feature
    from cim_bench.models.formats.format import Check as Check
    from cim_bench.models.formats.format import Format as Format
    from cim_bench.models.formats.normalisation import CLIP as CLIP
    from cim_bench.models.formats.normalisation import IMAGENET as IMAGENET
    from cim_bench.models.formats.normalisation import INCEPTION as INCEPTION
    from cim_bench.models.formats.normalisation import Beside as Beside
    from cim_bench.models.formats.normalisation import Cited as Cited
    from cim_bench.models.formats.normalisation import Switch as Switch
    from cim_bench.records.facets import Facets as Facets
    from cim_bench.records.measurement import METRICS as METRICS
    from cim_bench.records.measurement import Measurement as Measurement
    from cim_bench.records.outcomes import Count as Count
    from cim_bench.records.record import Record as Record
    from cim_bench.spec import Arch as Arch
    from cim_bench.spec import Data as Data
    from cim_bench.spec import FromCheckpoint as FromCheckpoint
    from cim_bench.spec import Machine as Machine
    from cim_bench.spec import Training as Training

# In a checkout, which a command that is started there imports in place of what is installed, three folders of this
# package lie beside this one.
_HERE = os.path.dirname(__file__)  # noqa: PTH120  pathlib costs a notebook's first import more than all of this
_ABOVE = os.path.dirname(_HERE)  # noqa: PTH120
if not os.path.exists(f"{_HERE}/evals") and os.path.exists(f"{_ABOVE}/evals/__init__.py"):  # noqa: PTH110
    __path__.append(_ABOVE)

# The module of each name above; a test holds that the two lists agree.
_HOMES = {
    "cim_bench.api": ("BenchmarkResult", "TrainedCheckpoint", "evaluate", "load_records", "run", "train_checkpoint"),
    "cim_bench.benchmark": ("Benchmark", "Pretraining", "RandomInit"),
    "cim_bench.contracts.context": ("Context",),
    "cim_bench.contracts.evaluator": ("Evaluator", "SetEvaluator"),
    "cim_bench.contracts.executor": ("Executor", "Graph", "Job", "JobResult"),
    "cim_bench.contracts.features": ("FeatureEvaluator",),
    "cim_bench.contracts.parts": ("Part", "split_parts"),
    "cim_bench.contracts.pretext": ("Panel", "Pretext", "PretextInputs", "PretextModel"),
    "cim_bench.contracts.queue": ("JobQueue",),
    "cim_bench.data.images": ("ImageSet",),
    "cim_bench.data.transforms": ("EvalTransform",),
    "cim_bench.engine.inference": ("ImageBatch", "Transform", "run_models"),
    "cim_bench.evals.metrics": ("accuracy",),
    "cim_bench.executors.local": ("LocalExecutor",),
    "cim_bench.models.backbone": ("Backbone", "Feature"),
    "cim_bench.models.formats.format": ("Check", "Format"),
    "cim_bench.models.formats.normalisation": ("CLIP", "IMAGENET", "INCEPTION", "Beside", "Cited", "Switch"),
    "cim_bench.records.facets": ("Facets",),
    "cim_bench.records.measurement": ("METRICS", "Measurement"),
    "cim_bench.records.outcomes": ("Count",),
    "cim_bench.records.record": ("Record",),
    "cim_bench.spec": ("Arch", "Data", "FromCheckpoint", "Machine", "Training"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cim-bench")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cim_bench' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, "__version__"])
