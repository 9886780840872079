"""Carries out evaluations that are to be measured: one, or several that share their images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cim_bench.common.files import remove, unfinished_writes
from cim_bench.contracts.context import Context
from cim_bench.contracts.evaluator import SetEvaluator
from cim_bench.contracts.features import FeatureEvaluator, features_folder, features_of
from cim_bench.engine.devices import is_main, make_accelerator
from cim_bench.engine.inference import NonFiniteOutputError
from cim_bench.jobs.identity import subject_info
from cim_bench.jobs.passes import measurements, passes
from cim_bench.jobs.state import Evaluation, JobStates
from cim_bench.models.backbone import Backbone, load_backbone
from cim_bench.models.checkpoint import load_checkpoint
from cim_bench.records.measurement import Measurement
from cim_bench.records.outcomes import constant_answers, outcome_files
from cim_bench.records.record import Record
from cim_bench.records.store import PARTIAL, RECORDS_FILE, is_finished, read_records, write_records


@dataclass(frozen=True)
class Evaluations:
    """Measures evaluations and writes their records.

    Attributes:
        states: The jobs they belong to.
    """

    states: JobStates

    def prepare(self, evaluation: Evaluation) -> None:
        """Refuse what does not fit, before anything is measured: what may fail here must not cost a number.

        Raises:
            ValueError: Saying what does not fit.
        """
        self.states.subjects.warnings(evaluation.job.subject)
        if isinstance(evaluation.evaluator, SetEvaluator):
            evaluation.evaluator.check(self._model(evaluation), self._context(evaluation))
        if isinstance(evaluation.evaluator, FeatureEvaluator):
            evaluation.evaluator.check(self._model(evaluation))

    def extract(self, todo: Sequence[Evaluation]) -> None:
        """Make the features of all models in one pass a set, so that each evaluation finds its own.

        Args:
            todo: Of one `FeatureEvaluator`.
        """
        evaluator = todo[0].evaluator
        assert isinstance(evaluator, FeatureEvaluator)
        models = {e.job.subject: self._model(e) for e in todo}
        features_of(evaluator, models, {e.job.subject: self._context(e) for e in todo})

    def measure(self, todo: Sequence[Evaluation]) -> Literal["done", "partial"]:
        """Measure and record; ``partial`` if it ended after the subset, as asked for.

        Args:
            todo: One evaluation, or several of one `SetEvaluator`.
        """
        started, evaluator = time.monotonic(), todo[0].evaluator
        contexts = {e.job.subject: self._context(e) for e in todo}
        models = {e.job.subject: self._model(e) for e in todo}
        if not isinstance(evaluator, SetEvaluator):
            (only,) = todo
            context = contexts[only.job.subject]
            found = self._run(only, models[only.job.subject], context)
            self._write(only, found, context, started)
            self._drop_features(only, context)
            return "done"
        for parts in passes(evaluator, models, contexts):
            is_subset = parts[-1].subset
            for e in todo:
                context = contexts[e.job.subject]
                self._write(e, measurements(evaluator, context, parts), context, started, partial=is_subset)
            if is_subset and self.states.benchmark.machine.subset_only:
                return "partial"
        return "done"

    def _run(self, evaluation: Evaluation, model: Backbone, context: Context) -> list[Measurement]:
        """What an evaluator measures; features that are no numbers must not be found by the next run."""
        try:
            return list(evaluation.evaluator.run(model, context))
        except NonFiniteOutputError:
            self._drop_features(evaluation, context)
            raise

    def _drop_features(self, evaluation: Evaluation, context: Context) -> None:
        if isinstance(evaluation.evaluator, FeatureEvaluator):
            make_accelerator(context.machine).wait_for_everyone()  # nobody reads them any more
            if context.main:
                remove(features_folder(context))

    def _model(self, evaluation: Evaluation) -> Backbone:
        checkpoint = (
            load_checkpoint(evaluation.classifier)
            if evaluation.classifier
            else self.states.subjects.checkpoint(evaluation.job.subject)
        )
        device = make_accelerator(self.states.benchmark.machine).device
        return load_backbone(checkpoint, what=evaluation.job.subject).to(device)

    def _context(self, evaluation: Evaluation) -> Context:
        if is_main():
            evaluation.folder.mkdir(parents=True, exist_ok=True)
            for left in unfinished_writes(evaluation.folder):
                remove(left)
        benchmark = self.states.benchmark
        return Context(
            data=benchmark.data,
            machine=benchmark.machine,
            seed=benchmark.seed,
            folder=evaluation.folder,
            subject=evaluation.meta,
            key=evaluation.key,
            protocol=evaluation.protocol,
            main=is_main(),
        )

    def _inherited(self, evaluation: Evaluation) -> list[str]:
        """What to tell of the weights: warnings of the subject, and of the fine-tuning that made its classifier."""
        own = self.states.subjects.warnings(evaluation.job.subject)
        if evaluation.classifier is None:
            return [*own]
        records = read_records(evaluation.classifier.parent / RECORDS_FILE)
        told = [text for record in records for text in record.warnings]
        return [*own, *(f"about its fine-tuning: {text}" for text in dict.fromkeys(told) if text not in own)]

    def _write(
        self,
        evaluation: Evaluation,
        found: Sequence[Measurement],
        context: Context,
        started: float,
        *,
        partial: bool = False,
    ) -> None:
        """Write a job's records, those of a subset into a folder of their own."""
        if not found:
            raise ValueError(f"{evaluation.job.evaluator} measured nothing")
        folder = evaluation.folder / PARTIAL if partial else evaluation.folder
        if not is_main() or is_finished(folder, evaluation.key):
            return
        kept = outcome_files(evaluation.folder, partial=partial)
        constant = filter(None, [constant_answers(kept, evaluation.protocol)])
        common: dict[str, Any] = {
            "key": evaluation.key,
            "subject": subject_info(evaluation.job.subject, evaluation.meta),
            "protocol": replace(evaluation.protocol, partial=partial),
            "provenance": self.states.provenance(
                duration_s=time.monotonic() - started, data=self.states.fingerprint(evaluation.evaluator)
            ),
            "warnings": (*self._inherited(evaluation), *context.warnings, *constant),
        }
        write_records(folder, [Record(measurement=measurement, **common) for measurement in found])
