"""What a number depends on moves its key, and nothing else does: for every evaluator and pretext of the registry.

Fields are found by themselves, so a new one is audited from its first day. Nothing is trained or measured here.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from cim_bench import registry
from cim_bench.benchmark import Benchmark, Pretraining, RandomInit
from cim_bench.contracts.evaluator import Evaluator
from cim_bench.data import fingerprint
from cim_bench.data.images import ImageSet
from cim_bench.data.sets import CORRUPTIONS
from cim_bench.evals.classifier import make_classifier
from cim_bench.evals.corruptions import generate, weather
from cim_bench.executors.local import LocalExecutor
from cim_bench.jobs import subjects
from cim_bench.jobs.plan import make_plan
from cim_bench.jobs.state import JobStates
from cim_bench.jobs.subjects import pretraining_folder, random_checkpoint
from cim_bench.models.backbone import load_backbone
from cim_bench.models.checkpoint import Checkpoint, Meta, load_checkpoint, save_checkpoint
from cim_bench.models.formats.opening import open_checkpoint
from cim_bench.spec import Arch, Data, FromCheckpoint, Machine, Training

EVALUATORS = list(registry.choices("evaluators"))
OF_MASKS = [name for name in EVALUATORS if name.startswith("segmentation_")]
OF_IMAGES = [name for name in EVALUATORS if name not in OF_MASKS]
PRETEXTS = list(registry.choices("pretexts"))
SHORT = Training(epochs=4, effective_batch=16, base_lr=1e-2)
# Another value for texts that no type lists; of tuples of texts, one more element.
TEXTS = {
    "name": "vit_small_patch16_224",
    "optimizer": "lamb",
    "auto_augment": "rand-m7-mstd0.5-inc1",
    "attacks": "bim",
    "attacks_to_run": "square",
}
Maker = Callable[[], Any]


def others(name: str, value: Any, hint: Any) -> list[Any]:
    """Values of a field other than its own, the likeliest to be allowed first.

    Raises:
        AssertionError: For a kind of field that is new here.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    found: list[Any]
    if origin in (typing.Union, types.UnionType):
        found = [other for kind in args for other in others(name, value, kind)]
    elif origin is tuple:
        found = [] if value is None else _other_tuples(name, value, args)
    elif origin is Literal:
        found = list(args)
    else:
        assert (origin or hint) in SIMPLE, f"say in SIMPLE what else {name}: {hint} may be"
        found = SIMPLE[origin or hint](name, value)
    return [other for other in found if other != value]


SIMPLE: dict[Any, Callable[[str, Any], list[Any]]] = {
    bool: lambda _, value: [not value],
    int: lambda _, value: [value * 2, value + 1, value - 1] if isinstance(value, int) else [1, 64],
    float: lambda _, value: [value * 0.9, value * 1.1, 0.5, value + 1] if value else [0.5, 0.01, 1.0, 1e-6],
    str: lambda name, value: [TEXTS.get(name, f"{value}x")],
    type(None): lambda *_: [None],
    Mapping: lambda _, value: [{**value, "mlp_ratio": 2.0}],
}


def _other_tuples(name: str, value: Any, args: tuple[Any, ...]) -> list[Any]:
    """With another element at one place, one more, or the first alone."""
    kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
    places = [(place, new) for place, kind in enumerate(kinds) for new in others(name, value[place], kind)]
    changed = [(*value[:place], new, *value[place + 1 :]) for place, new in places]
    longer = [(*value, new) for new in others(name, None, args[0])] if args[-1] is Ellipsis else []
    shorter = [value[:1]] if args[-1] is Ellipsis and len(value) > 1 else []
    return [*longer, *changed] if args[0] is str else [*changed, *longer, *shorter]


def leaves(value: Any, *, skip: tuple[str, ...] = ()) -> dict[str, list[Maker]]:
    """For every field, nested ones by dotted name: copies of `value` in which it alone is another, to be tried."""
    found: dict[str, list[Maker]] = {}
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.name in skip or Data in (hints[field.name], *typing.get_args(hints[field.name])):
            continue
        if dataclasses.is_dataclass(own):
            for name, makers in leaves(own).items():
                found[f"{field.name}.{name}"] = [_within(value, field.name, maker) for maker in makers]
        else:
            choices = others(field.name, own, hints[field.name])
            found[field.name] = [_with(value, field.name, choice) for choice in choices]
    return found


def _with(value: Any, name: str, new: Any) -> Maker:
    return lambda: replace(value, **{name: new})


def _within(value: Any, name: str, make: Maker) -> Maker:
    return lambda: replace(value, **{name: make()})


def build(makers: list[Maker]) -> Any:
    """The first copy that its checks allow; ``None`` if none is."""
    for make in makers:
        try:
            return make()
        except ValueError:
            continue
    return None


FIXED = {  # settings that may have no other value there: they would have no effect
    "linear_probe": ("training.weight_decay", "training.layer_decay"),
    "pretraining": ("training.layer_decay",),
    "segmentation_linear": ("training.layer_decay", "test.whole"),
}


def variants(base: Any, *, fixed: tuple[str, ...] = (), **options: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name of a field, a value, and a copy of it in which this field alone is another.

    A field that means something beside another setting alone, such as the threshold of one loss, is tried there.
    """
    bases = [base, *filter(None, (build(makers) for makers in leaves(base, **options).values()))]
    for name in leaves(base, **options):
        pairs = ((one, build(leaves(one, **options)[name])) for one in bases)
        one, changed = next(((one, other) for one, other in pairs if other is not None), (None, None))
        if name in fixed:
            assert changed is None, f"{name} may have another value"
            continue
        assert changed is not None, f"no other value of {name} is allowed; give one in TEXTS or `others`"
        yield name, one, changed


@dataclass(frozen=True)
class World:
    """Images, checkpoints, and keys of what is measured with them."""

    root: Path
    known: dict[tuple[object, Data, str], str]  # fingerprints, which do not move while settings do

    @property
    def data(self) -> Data:
        return Data(name="small", root=str(self.root / "images"))

    def evaluator(self, name: str) -> Evaluator:
        """By default, with its own sets where ours are."""
        made: Evaluator = registry.load(registry.target("evaluators", name))()
        places = {
            "imagenet-c": self.root / "released",
            "imagenet-a": self.root / "shifted",
            "ade20k": self.root / "masks",
        }
        own = {key: value for key, value in vars(made).items() if isinstance(value, Data)}
        moved = {key: replace(data, root=str(places[data.name])) for key, data in own.items()}
        return replace(made, **moved)

    def benchmark(self, evaluator: Evaluator, **changes: Any) -> Benchmark:
        subject = FromCheckpoint(path=str(self.root / evaluator.needs))
        base = Benchmark(name="b", subjects={"s": subject}, evaluators={"e": evaluator}, data=self.data)
        return replace(base, **changes)

    def key(self, evaluator: Evaluator, *, output: str = "out", fresh: bool = False, **changes: Any) -> str:
        benchmark = self.benchmark(evaluator, **changes)
        (job,) = make_plan(benchmark)
        known = {} if fresh else self.known
        return JobStates(benchmark, self.root / output, {job.name: job}, known).evaluation(job).key


@pytest.fixture(scope="session")
def made_world(
    small_photos: Data, small_masks: Data, tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("world")
    shutil.copytree(small_masks.root, root / "masks")
    shutil.copytree(small_photos.root, root / "images")
    shutil.copytree(Path(small_photos.root, "val"), root / "shifted")
    for name in (name for group in CORRUPTIONS.values() for name in group):
        (root / "released" / name).mkdir(parents=True)
        for severity in range(1, 6):
            (root / "released" / name / str(severity)).symlink_to(root / "images" / "val")
    (root / "released" / "fog" / "3").unlink()
    shutil.copytree(Path(small_photos.root, "val"), root / "released" / "fog" / "3")
    checkpoint = random_checkpoint(RandomInit(arch=tiny_arch), 0)
    save_checkpoint(root / "backbone", checkpoint.state, checkpoint.meta)
    tuned = make_classifier(load_backbone(checkpoint, what="x"), 4, drop_path=0.0, head_std=0.5).net
    classes = ImageSet(small_photos, "val").classes
    meta = replace(checkpoint.meta, kind="classifier", classes=classes, global_pool="avg")
    save_checkpoint(root / "classifier", tuned.state_dict(), meta)
    return root


@functools.cache
def opened(source: FromCheckpoint) -> Any:
    """A checkpoint, read once: none of those here changes."""
    return open_checkpoint(source)


@pytest.fixture(scope="session")
def shared() -> dict[tuple[object, Data, str], str]:
    return {}


@pytest.fixture
def world(made_world: Path, shared: dict[tuple[object, Data, str], str], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv(weather.FROST_VARIABLE, raising=False)
    monkeypatch.setattr(weather, "FROST_PACKAGE", "cim_bench_no_such_package")
    monkeypatch.setattr(subjects, "open_checkpoint", opened)
    return World(made_world, shared)


def other_pixels(file: Path) -> Callable[[], object]:
    """Change a byte of a file in place, keeping size and time of writing; returns what undoes it."""
    content, before = file.read_bytes(), file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return lambda: file.write_bytes(content)


@pytest.mark.parametrize("name", EVALUATORS)
def test_every_setting_of_an_evaluator_moves_its_key(name: str, world: World) -> None:
    audited = []
    for field, base, changed in variants(world.evaluator(name), fixed=FIXED.get(name, ())):
        assert world.key(changed) != world.key(base), field
        audited.append(field.partition(".")[0])
    own = {field.name for field in dataclasses.fields(world.evaluator(name))}
    assert own - set(audited) <= {"data", "corrupted"}  # its sets, which follow


@pytest.mark.parametrize("name", EVALUATORS)
def test_of_an_evaluators_own_sets_the_name_counts_and_not_the_place(name: str, world: World, tmp_path: Path) -> None:
    evaluator = world.evaluator(name)
    key = world.key(evaluator)
    for field, data in vars(evaluator).items():
        if isinstance(data, Data):
            assert world.key(replace(evaluator, **{field: replace(data, name="imagenet-r")})) != key
            (tmp_path / "moved").symlink_to(data.root)
            other: dict[str, Any] = {} if name in OF_MASKS else {"train_split": "never read"}
            moved = replace(data, root=str(tmp_path / "moved"), cache="elsewhere", **other)
            assert world.key(replace(evaluator, **{field: moved})) == key
        elif field == "data":
            assert data is None
            assert world.key(replace(evaluator, **{field: world.data})) != key


@pytest.mark.parametrize("name", EVALUATORS)
def test_version_and_seed_move_the_key(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = world.evaluator(name)
    keys = {world.key(evaluator), world.key(evaluator, seed=1)}
    monkeypatch.setattr(type(evaluator), "version", evaluator.version + 1)
    assert len({*keys, world.key(evaluator)}) == 3


@pytest.mark.parametrize("name", EVALUATORS)
def test_the_machine_and_the_rest_of_a_benchmark_do_not(name: str, world: World) -> None:
    evaluator = world.evaluator(name)
    key = world.key(evaluator)
    for field, base, machine in variants(Machine()):
        assert base == Machine()
        assert world.key(evaluator, machine=machine) == key, field
    unchanged: dict[str, Any] = {
        "name": "other",
        "executor": LocalExecutor(slots=1),
        "report": "matrix",
        "only": {"e": ("*",)},
        "subjects": {"other name": FromCheckpoint(path=str(world.root / evaluator.needs), published="there")},
        "evaluators": {"other name": evaluator},
        "machine": Machine(),
    }
    moving = {"seed", "data"}
    assert {field.name for field in dataclasses.fields(Benchmark)} == unchanged.keys() | moving
    for field, value in unchanged.items():
        if field not in ("subjects", "evaluators"):
            assert world.key(evaluator, **{field: value}) == key, field
    renamed = {name: unchanged[name] for name in ("subjects", "evaluators")}
    assert world.key(evaluator, output="elsewhere", **renamed) == key


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_byte_name_and_class_of_what_is_read_moves_the_key(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(world.root, tmp_path / "world", symlinks=True)
    own = World(tmp_path / "world", {})
    for link in (own.root / "released").glob("*/*"):
        if link.is_symlink():
            link.unlink()
            link.symlink_to(own.root / "images" / "val")
    evaluator = own.evaluator(name)
    key = own.key(evaluator, fresh=True)
    assert key == world.key(evaluator)  # wherever they lie
    read = {Path(data.root, split).resolve() for data, split in evaluator.reads(own.data)}
    places = ["images/train", "images/val", "shifted", "released/fog/3"]
    assert {own.root / place for place in places} >= read
    for place in places:
        folder, counts = own.root / place, (own.root / place) in read
        file = folder / "coffee" / "003.jpg"
        undo = other_pixels(file)
        assert (own.key(evaluator, fresh=True) != key) == counts, "a byte"
        undo()
        assert own.key(evaluator, fresh=True) == key
        if not counts or place == "released/fog/3":
            continue
        for old, new in ((file, file.with_name("003a.jpg")), (folder / "rocket", folder / "sea")):
            old.rename(new)
            assert own.key(evaluator, fresh=True) != key, f"{old.name} is called {new.name}"
            new.rename(old)
        extra = shutil.copy(file, file.with_name("999.jpg"))
        assert own.key(evaluator, fresh=True) != key, "one image more"
        Path(extra).unlink()
        taken = file.rename(tmp_path / "taken")
        assert own.key(evaluator, fresh=True) != key, "one image less"
        taken.rename(file)
        assert own.key(evaluator, fresh=True) == key


@pytest.mark.parametrize("name", OF_MASKS)
def test_every_image_mask_and_class_name_of_a_segmentation_set_moves_the_key(
    name: str, world: World, tmp_path: Path
) -> None:
    shutil.copytree(world.root, tmp_path / "world", symlinks=True)
    own = World(tmp_path / "world", {})
    evaluator, masks = own.evaluator(name), own.root / "masks"
    key = own.key(evaluator, fresh=True)
    assert key == world.key(evaluator)  # wherever they lie
    files = [next(iter(sorted(masks.glob(f"{top}/{split}/*")))) for top in ("images", "annotations")
             for split in ("training", "validation")]  # fmt: skip
    for file in files:
        undo = other_pixels(file)
        assert own.key(evaluator, fresh=True) != key, file
        undo()
    names = (masks / "classes.txt").read_text()
    (masks / "classes.txt").write_text(names.replace("coins", "pennies"))
    assert own.key(evaluator, fresh=True) != key
    (masks / "classes.txt").write_text(names)
    assert own.key(evaluator, fresh=True) == key
    for file in files[::2]:  # an image less, with its annotation
        file.rename(tmp_path / f"{file.parents[1].name}{file.suffix}")
    assert own.key(evaluator, fresh=True) != key
    assert other_pixels(own.root / "images" / "train" / "coffee" / "003.jpg")
    for file in files[::2]:
        (tmp_path / f"{file.parents[1].name}{file.suffix}").rename(file)
    assert own.key(evaluator, fresh=True) == key  # the benchmark's own images are not read


@pytest.mark.parametrize("name", EVALUATORS)
def test_images_that_are_left_out_move_the_key_and_the_place_of_their_list_does_not(
    name: str, world: World, tmp_path: Path
) -> None:
    evaluator = world.evaluator(name)
    key, keys = world.key(evaluator), []
    for number, text in enumerate(("", "coffee/003.jpg\n", "coffee/003.jpg\n")):
        (tmp_path / str(number)).write_text(text)
        keys.append(world.key(evaluator, data=replace(world.data, bad_files=str(tmp_path / str(number)))))
    read = any(data.root == world.data.root for data, _ in evaluator.reads(world.data))
    assert keys[0] == key
    assert (keys[1] != key) == read
    assert keys[1] == keys[2]


@pytest.mark.parametrize("name", EVALUATORS)
def test_names_of_the_benchmarks_set_and_of_its_splits_are_labels(name: str, world: World, tmp_path: Path) -> None:
    evaluator = world.evaluator(name)
    (tmp_path / "learn").symlink_to(world.root / "images" / "train")
    (tmp_path / "score").symlink_to(world.root / "images" / "val")
    renamed = Data(name="z", root=str(tmp_path), train_split="learn", val_split="score", cache=str(tmp_path))
    assert world.key(evaluator, data=renamed) == world.key(evaluator)


FROST_MOVES = {"corruptions": {"source": "generated"}, "robustbench": {"corruptions": "generated"}}


@pytest.mark.parametrize("name", EVALUATORS)
def test_frost_and_the_code_of_corruptions_move_the_keys_of_generated_ones(
    name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "two", "copy"):
        (tmp_path / folder).mkdir()
        for file in weather.FROST_FILES:
            (tmp_path / folder / file).write_bytes(b"frost photograph")
    other_pixels(tmp_path / "two" / weather.FROST_FILES[2])
    evaluators = {"default": world.evaluator(name)}
    if name in FROST_MOVES:
        evaluators["generated"] = replace(evaluators["default"], **FROST_MOVES[name])
    for kind, evaluator in evaluators.items():
        keys = [world.key(evaluator)]
        for folder in ("one", "two", "copy"):
            monkeypatch.setenv(weather.FROST_VARIABLE, str(tmp_path / folder))
            keys.append(world.key(evaluator))
        monkeypatch.delenv(weather.FROST_VARIABLE)
        with monkeypatch.context() as patch:
            patch.setattr(generate, "VERSION", generate.VERSION + 1)
            keys.append(world.key(evaluator))
        assert len(set(keys)) == (4 if kind == "generated" else 1), (name, kind)
        assert keys[1] == keys[3]


def test_the_list_of_real_labels_moves_its_key(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cim_bench.evals import shifts

    evaluator = replace(world.evaluator("shifts"), labels="real")  # type: ignore[type-var]
    keys = {world.key(evaluator)}
    (tmp_path / "list.json").write_text("[[1]]")
    monkeypatch.setattr(shifts, "_real_file", lambda: tmp_path / "list.json")
    assert len({*keys, world.key(evaluator)}) == 2


# Of a checkpoint: what a number depends on and the method of its row; and what is said of it beside that.
COUNTS = {"kind", "method", "arch", "mean", "std", "classes", "global_pool", "hash"}
LABELS = {"epochs", "seed", "parent", "recipe", "pretrain_data", "passed", "key", "schema", "held_out", "warning"}


@pytest.mark.parametrize("needs", ["backbone", "classifier"])
def test_what_counts_of_a_checkpoint(needs: str, world: World, tmp_path: Path) -> None:
    assert {field.name for field in dataclasses.fields(Meta)} == COUNTS | LABELS
    first = load_checkpoint(world.root / needs)
    meta, arch = first.meta, first.meta.arch
    swapped = {key: value + 1 if key.endswith("norm.weight") else value for key, value in first.state.items()}
    changes: dict[str, Checkpoint] = {
        "weights": Checkpoint(swapped, meta),
        "method": Checkpoint(first.state, replace(meta, method="other")),
        "mean": Checkpoint(first.state, replace(meta, mean=(0.5, 0.456, 0.406))),
        "std": Checkpoint(first.state, replace(meta, std=(0.229, 0.224, 0.226))),
        "heads": Checkpoint(first.state, replace(meta, arch=replace(arch, options={**arch.options, "num_heads": 6}))),
        "size": Checkpoint(first.state, replace(meta, arch=replace(arch, image_size=64))),
        "pooling": Checkpoint(first.state, replace(meta, global_pool="max" if meta.global_pool else "token")),
    }
    if meta.classes:
        changes["order of classes"] = Checkpoint(first.state, replace(meta, classes=meta.classes[::-1]))
    evaluator = world.evaluator("knn" if needs == "backbone" else "adversarial")
    keys = {"as it is": world.key(evaluator)}
    for name, changed in changes.items():
        save_checkpoint(tmp_path / name, changed.state, changed.meta)
        keys[name] = world.key(evaluator, subjects={"s": FromCheckpoint(path=str(tmp_path / name))})
    assert len(set(keys.values())) == len(keys)
    labels = {"epochs": 7, "seed": 9, "pretrain_data": "x", "passed": {"a": 1}, "recipe": {"b": 2}, "key": "k"}
    labels |= {"held_out": {"val_loss": 1.0}, "warning": "w"}
    save_checkpoint(tmp_path / "labels", first.state, replace(meta, **{**labels, "parent": "p"}))
    assert world.key(evaluator, subjects={"s": FromCheckpoint(path=str(tmp_path / "labels"))}) == keys["as it is"]


def test_the_weights_of_random_subjects_follow_the_seed(world: World, tiny_arch: Arch) -> None:
    random = {"s": RandomInit(arch=tiny_arch)}
    knn = world.evaluator("knn")
    keys = [world.key(knn, subjects=random, seed=seed) for seed in (0, 1)]
    torch.manual_seed(5)
    assert world.key(knn, subjects=random) == keys[0] != keys[1]


def pretraining(name: str, world: World, tiny_arch: Arch) -> Pretraining:
    pretext = registry.load(registry.target("pretexts", name))()
    return Pretraining(pretext=pretext, arch=tiny_arch, data=world.data, training=SHORT)


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_setting_of_a_pretraining_moves_its_key_and_the_machine_does_not(
    name: str, world: World, tiny_arch: Arch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = pretraining(name, world, tiny_arch)
    monkeypatch.setattr(subjects, "ImageSet", _once(ImageSet(world.data, "train")))

    def key(one: Pretraining) -> str:
        return pretraining_folder(one, tmp_path)[1]

    seen = []
    for field, base, changed in variants(recipe, fixed=FIXED["pretraining"], skip=("machine",)):
        assert key(base) != key(changed), field
        seen.append(field)
    assert {"seed", "export", "training.epochs", "arch.image_size", "arch.options"} < set(seen)
    assert any(field.startswith("pretext.") for field in seen)
    for field, _, machine in variants(Machine()):
        assert key(replace(recipe, machine=machine)) == key(recipe), field
    first = key(recipe)
    monkeypatch.setattr(type(recipe.pretext), "version", recipe.pretext.version + 1)
    assert key(recipe) != first


def _once(images: ImageSet) -> Callable[..., ImageSet]:
    _ = images.fingerprint
    return lambda *_: images


@pytest.mark.parametrize("name", PRETEXTS)
def test_the_training_images_move_the_key_of_a_pretraining(
    name: str, world: World, tiny_arch: Arch, tmp_path: Path
) -> None:
    shutil.copytree(world.root / "images", tmp_path / "images")
    recipe = pretraining(name, world, tiny_arch)
    first = pretraining_folder(recipe, tmp_path)[1]
    moved = replace(recipe, data=Data(name="moved", root=str(tmp_path / "images"), cache="x"))
    assert pretraining_folder(moved, tmp_path / "elsewhere")[1] == first
    other_pixels(tmp_path / "images" / "val" / "coffee" / "003.jpg")  # held-out losses alone
    assert pretraining_folder(moved, tmp_path)[1] == first
    other_pixels(tmp_path / "images" / "train" / "coffee" / "003.jpg")
    assert pretraining_folder(moved, tmp_path)[1] != first


def test_a_key_does_not_depend_on_what_the_cache_knows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    knn = world.evaluator("knn")
    key = world.key(knn, fresh=True)
    monkeypatch.setattr(fingerprint, "cache_folder", lambda: Path("/dev/null"))
    assert world.key(knn, fresh=True) == key
