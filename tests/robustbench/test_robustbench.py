"""RobustBench's own code on a small classifier of real photographs; `tox run -e robustbench` has what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from cim_bench.benchmark import Benchmark, RandomInit
from cim_bench.common.seeds import sample_seed
from cim_bench.contracts.context import Context
from cim_bench.data.transforms import EvalTransform
from cim_bench.engine.inference import run_models
from cim_bench.evals.corruptions.generate import CORRUPTIONS, corrupt_as_released
from cim_bench.evals.robustbench import protocol as ours
from cim_bench.evals.robustbench.library import load_robustbench
from cim_bench.evals.robustbench.protocol import RobustBench, doubts, leaderboard_places
from cim_bench.jobs.runner import Runner
from cim_bench.jobs.subjects import random_checkpoint
from cim_bench.models.backbone import Backbone
from cim_bench.models.checkpoint import save_checkpoint
from cim_bench.records.measurement import METRICS, Measurement
from cim_bench.records.store import read_records
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine

EPS = 4 / 255
QUICK: dict[str, Any] = {"attacks_to_run": ("apgd-ce",), "corruptions": "off", "crop_pct": 1.0}
Job = tuple[Backbone, Context, Tensor, Tensor]


@pytest.fixture(scope="module")
def library() -> Any:
    """The real thing, in the environment that has it."""
    pytest.importorskip(
        "pyautoattack", reason="the robustbench extra is not installed; its environment is `tox run -e robustbench`"
    )
    return load_robustbench()


@pytest.fixture(scope="module")
def trained(
    library: Any, tiny_arch: Arch, small_photos: Data, cpu: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """A classifier that knows its training photographs, and a context that scores these."""
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), seed=0)
    torch.manual_seed(0)
    model = Backbone(tiny_arch, num_classes=4, model_args={"global_pool": "avg"})
    data = replace(small_photos, val_split="train")
    context = Context(data=data, machine=cpu, seed=0, folder=tmp_path_factory.mktemp("job"), subject=checkpoint.meta)
    read, labels = run_models({"x": lambda x: x}, context.scored_images(), EvalTransform(32, 1.0), machine=cpu)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(model(read["x"]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().classes = context.scored_images().classes
    return model, context, read["x"], labels


@pytest.fixture
def job(trained: Job, tmp_path: Path) -> Job:
    model, context, pixels, labels = trained
    return model, replace(context, folder=tmp_path, warnings=[]), pixels, labels


def found(evaluator: RobustBench, model: Backbone, context: Context) -> dict[str, Measurement]:
    """Measurements by what attacked the images, or what they are a mean over."""
    return {str(*m.facets.values()): m for m in evaluator.run(model, context)}


def outcomes(context: Context, part: str = "all") -> Any:
    return pq.read_table(context.folder / "outcomes" / f"{part}.parquet").to_pandas()


def right(model: nn.Module, pixels: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((model(pixels).argmax(dim=1) == labels).sum())


@pytest.mark.slow
def test_standard_autoattack(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """All four attacks, on fewer images; kept outcomes, weights and flags as every evaluator leaves them."""
    model, context, _, _ = job
    model.net.pos_embed.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = {key: value.requires_grad for key, value in model.named_parameters()}
    ran: list[str] = []
    monkeypatch.setattr("pyautoattack.state.EvaluationState.add_run_attack", lambda _, name: ran.append(name))
    measured = found(RobustBench(corruptions="off", n_examples=8, crop_pct=1.0), model, context)
    assert (RobustBench().eps, capsys.readouterr().out) == (4 / 255, "")
    assert list(measured) == ["clean", "autoattack"]
    assert all(m.metric in METRICS and m.n == 8 and m.benchmark == "small" for m in measured.values())
    assert 0 < measured["autoattack"].value < measured["clean"].value
    assert ran == ["apgd-ce", "apgd-t", "fab-t", "square"]  # some images withstood, so none was left out
    table = outcomes(context)
    assert list(table.columns) == ["id", "label", "clean", "autoattack"]
    assert table["id"].is_unique
    assert {v: (table[v] == table["label"]).mean() for v in measured} == {v: m.value for v, m in measured.items()}
    assert table["label"].value_counts().tolist() == [2, 2, 2, 2]
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert {key: value.requires_grad for key, value in model.named_parameters()} == wanted
    assert not model.training
    assert context.warnings[-1] == "targeted attacks have 3 targets in place of 9"


def test_the_attack_is_robustbenchs_own(library: Any, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmark` is called once, returns what is recorded, and gets its own loader and attack back."""
    model, context, pixels, labels = job
    own = library.load_clean_dataset, library.AutoAttack
    returned = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        returned.append(library_benchmark(*args, **kwargs))
        return returned[0]

    library_benchmark = library.benchmark
    monkeypatch.setattr(library, "benchmark", watched)
    measured = found(RobustBench(**QUICK), model, context)
    assert len(returned) == 1
    assert [m.value for m in measured.values()] == pytest.approx(returned[0])
    assert measured["clean"].value == right(model, pixels, labels) / len(labels) == 1.0
    assert (library.load_clean_dataset, library.AutoAttack) == own
    assert "not standard AutoAttack but apgd-ce alone" in context.warnings


def test_records_are_like_any_other(job: Job, tmp_path: Path) -> None:
    """A whole run from a classifier's folder, which neither fine-tunes nor looks at the training split."""
    model, context, _, _ = job
    meta = replace(context.subject, kind="classifier", classes=model.classes, global_pool="avg", parent="p", hash="")
    save_checkpoint(tmp_path / "classifier", model.net.state_dict(), meta)
    benchmark = Benchmark(
        name="rb",
        subjects={"tuned": FromCheckpoint(path=str(tmp_path / "classifier"))},
        evaluators={"robustbench": RobustBench(**QUICK, n_examples=4)},
        data=context.data,
        machine=context.machine,
    )
    assert [r.error for r in Runner(benchmark, tmp_path / "out").run().values()] == [""]
    records = list(read_records(tmp_path / "out"))
    assert [record.measurement.facets for record in records if record.measurement] == [
        {"attack": "clean"},
        {"attack": "autoattack"},
    ]
    assert all(record.subject.parent == "p" and record.protocol.version == 1 for record in records)
    assert records[0].protocol.passed["attacks_to_run"] == ["apgd-ce"]
    assert "not standard AutoAttack but apgd-ce alone" in records[0].warnings
    assert [r.status for r in Runner(benchmark, tmp_path / "out").run().values()] == ["skipped"]


def test_same_images_as_pyautoattack_alone(job: Job) -> None:
    """APGD-CE written with pyautoattack's own interface, in the same batches."""
    import pyautoattack

    model, context, pixels, labels = job
    measured = found(RobustBench(**QUICK, eps=1 / 255), model, context)
    attack = pyautoattack.AutoAttack(model, norm="Linf", eps=1 / 255, seed=0, version="custom", attacks=["apgd-ce"])
    attack.apgd.n_restarts = 1
    attacked, _ = attack.run_standard_evaluation(pixels, labels, batch_size=context.machine.micro_batch)
    with torch.no_grad():
        predicted = model(attacked).argmax(dim=1)
    assert measured["autoattack"].value == right(model, attacked, labels) / len(labels)
    assert outcomes(context)["autoattack"].tolist() == predicted.tolist()
    assert (attacked - pixels).abs().max() <= 1 / 255 + 1e-6


def test_same_seed_same_numbers(job: Job, tmp_path: Path) -> None:
    model, context, _, _ = job
    tables = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        again = replace(context, folder=tmp_path / name)
        found(RobustBench(**QUICK, n_examples=12, eps=1 / 255), model, again)
        tables.append(outcomes(again))
    assert tables[0].equals(tables[1])


def test_a_smaller_eps_leaves_more_right(job: Job) -> None:
    model, context, _, _ = job
    evaluators = [RobustBench(**QUICK, n_examples=16, eps=eps) for eps in (1e-5, EPS, 32 / 255)]
    values = [found(evaluator, model, context)["autoattack"].value for evaluator in evaluators]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_generated_corruptions_are_robustbenchs_fifteen(library: Any, job: Job) -> None:
    model, context, pixels, labels = job
    names = library.CORRUPTIONS_DICT[library.BenchmarkDataset.imagenet][library.ThreatModel.corruptions]
    assert sorted(names) == sorted(CORRUPTIONS)
    settings = {**QUICK, "corruptions": "generated"}
    last = found(RobustBench(**settings), model, context)["corruptions"]
    assert (last.benchmark, last.split, last.n) == ("small-c-generated", "test", 75 * len(labels))
    table = outcomes(context, "corruptions")
    cells = [column for column in table.columns if column not in ("id", "label")]
    assert len(cells) == 75
    assert last.value == pytest.approx(sum((table[c] == table["label"]).mean() for c in cells) / 75)
    seeds = torch.tensor([sample_seed(0, name) for name in table["id"]])
    stored = (pixels * 255).round().to(torch.uint8)
    by_hand = corrupt_as_released(stored, "contrast", 3, seeds).float() / 255
    assert (table["contrast-3"] == table["label"]).sum() == right(model, by_hand, labels)
    assert "corruptions generated on the fly, not the released files" in context.warnings


def write_released(root: Path, job: Job, size: int = 32) -> Data:
    """75 folders of two images a class; in one of them, fog at severity 5, each shows another class."""
    _, context, pixels, _ = job
    images = context.scored_images()
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            for place in (0, 1, 12, 13, 24, 25, 36, 37):
                file = root / name / str(severity) / Path(images.image_id(place)).with_suffix(".png")
                file.parent.mkdir(parents=True, exist_ok=True)
                shown = place if (name, severity) != ("fog", 5) else (place + 12) % 48
                stored = (pixels[shown, :, :size, :size] * 255).round().byte()
                Image.fromarray(stored.permute(1, 2, 0).numpy()).save(file)
    return Data(name="small-c", root=str(root))


def test_released_files_are_read_as_they_are(job: Job, tmp_path: Path) -> None:
    model, context, _, _ = job
    data = write_released(tmp_path / "c", job)
    evaluator = RobustBench(**{**QUICK, "corruptions": "released"}, corrupted=data, n_examples=8)
    last = found(evaluator, model, context)["corruptions"]
    assert (last.benchmark, last.value, last.n) == ("small-c", 74 / 75, 75 * 8)
    assert len(evaluator.reads(context.data)) == 76
    next((tmp_path / "c" / "fog" / "5" / model.classes[0]).iterdir()).unlink()
    with pytest.raises(ValueError, match="fog-5 does not hold the same images as the first folder"):
        found(evaluator, model, context)


def test_released_files_of_another_size_fail_before_the_attack(job: Job, tmp_path: Path) -> None:
    model, context, _, _ = job
    data = write_released(tmp_path / "c", job, size=16)
    with pytest.raises(ValueError, match="an image of 16x16 pixels, where every one must be stored at 32x32"):
        found(RobustBench(**{**QUICK, "corruptions": "released"}, corrupted=data), model, context)
    assert not (context.folder / "outcomes").exists()


def test_imagenet_takes_robustbenchs_images(library: Any) -> None:
    """Names of all 5,000 and others around them: exactly those come out, in RobustBench's order."""
    from robustbench.loaders import make_custom_dataset

    class Names:
        def __init__(self, names: list[str]) -> None:
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def image_id(self, index: int) -> str:
            return self.names[index]

    class AnyClass(dict[str, int]):
        def __missing__(self, _: str) -> int:
            return 0

    listed = [path for path, _ in make_custom_dataset("", "helper_files/imagenet_test_image_ids.txt", AnyClass())]
    assert len(listed) == 5000
    whole: Any = Names(sorted([*listed, "n01440764/other.JPEG"]))
    assert [whole.image_id(i) for i in leaderboard_places(whole, 5000, 0)] == listed
    assert [whole.image_id(i) for i in leaderboard_places(whole, 7, 1)] == listed[:7]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attacks_to_run": ("pgd",)}, "attacks_to_run.* is 'pgd'; it must be one of 'apgd-ce', 'apgd-t'"),
        ({"eps": 0.0}, "eps is 0.0; it must be a number, above 0"),
        ({"eps": 4.0}, "eps is 4.0; .* at most 1"),
        ({"n_examples": 0}, "n_examples is 0"),
    ],
)
def test_bad_settings(job: Job, change: dict[str, Any], sentence: str) -> None:
    model, context, _, _ = job
    with pytest.raises(ValueError, match=sentence):
        found(RobustBench(**{**QUICK, **change}), model, context)


def test_other_classes_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    model, context, _, _ = job
    monkeypatch.setattr(model, "classes", ("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="give a classifier of these images"):
        found(RobustBench(**QUICK), model, context)


def test_three_classes_cannot_be_attacked_through_four_logits(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    model, context, _, _ = job
    monkeypatch.setattr(model, "num_classes", 3)
    with pytest.raises(ValueError, match="apgd-t compares four logits and the classifier has 3"):
        found(RobustBench(corruptions="off"), model, context)


def test_autoattacks_doubts_become_footnotes(job: Job) -> None:
    """A classifier without gradients is what AutoAttack's own checks are for."""
    model, context, _, _ = job

    class Rounded(Backbone):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward((images * 8).round() / 8)

    deaf = Rounded(model.arch, num_classes=4, model_args={"global_pool": "avg"}).eval()
    deaf.net.load_state_dict(model.net.state_dict())
    deaf.classes = model.classes
    found(RobustBench(**{**QUICK, "attacks_to_run": ("apgd-dlr",)}, n_examples=20), deaf, context)
    assert sum("with zero gradient" in sentence for sentence in context.warnings) == 1


def test_the_old_copy_that_torchattacks_ships_is_recognised(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(library, "benchmark")  # commented out in it
    with pytest.raises(ValueError, match="pip install --force-reinstall --no-deps robustbench"):
        load_robustbench()


def test_pins_are_the_gates_but_for_robustbenchs_own() -> None:
    here = Path(__file__).parents[2]
    gate, own = (
        dict(line.split("==") for line in (here / name).read_text().splitlines() if "==" in line and line[0] != "#")
        for name in ("constraints.txt", "constraints-robustbench.txt")
    )
    assert {name for name in gate.keys() & own.keys() if gate[name] != own[name]} == {"timm"}


def test_impossible_results_are_noticed() -> None:
    images = torch.full((4, 3, 2, 2), 0.99)
    fair = images - EPS
    assert list(doubts(images, fair, EPS, (4, 2), (1.0, 0.5))) == []
    assert list(doubts(images, fair, EPS, (2, 3), (0.5, 0.75))) == [
        "3 images are right under attack and only 2 without"
    ]
    assert list(doubts(images, fair, EPS, (4, 2), (1.0, 0.25))) == [
        "RobustBench counts 25.00% of attacked images right, and the kept predictions 2"
    ]
    far, outside = doubts(images, images + 8 / 255, EPS, (4, 2), (1.0, 0.5))
    assert far == "AutoAttack changes a pixel by 8/255, more than eps 4/255"
    assert outside == "AutoAttack leaves the range [0, 1] of pixels"
    assert len(list(doubts(images, images * torch.nan, EPS, (4, 2), (1.0, 0.5)))) == 2


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def remove(package: str) -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("robustbench", "autoattack", "pyautoattack")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # imports of it fail

    return remove


@pytest.mark.parametrize("package", ["pyautoattack", "robustbench", "pkg_resources"])
def test_a_missing_package_names_the_extra(without: Callable[[str], None], package: str) -> None:
    """In every environment, the gate's too, which has none of them."""
    without(package)
    with pytest.raises(ValueError, match=r"robustbench does not run here .*: pip install 'cim-bench\[robustbench\]'"):
        ours.load_robustbench()
