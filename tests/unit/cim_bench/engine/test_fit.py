"""The training loop: schedule by hand, exact batches, clipping, and resuming to the same bits."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from cim_bench.common.interrupts import Terminated, held_back, raising_terminated
from cim_bench.engine import log
from cim_bench.engine.fit import NonFiniteLossError, fit
from cim_bench.engine.log import LOG
from cim_bench.engine.resume import RESUME, write_resume
from cim_bench.engine.schedule import Steps, StepSampler, learning_rate, weight_decay_groups
from cim_bench.spec import Machine, Training
from tests.processes import in_two_processes

CPU = Machine(device="cpu", workers=0, micro_batch=4, save_every_s=1e9, log_every=1)


class Numbers:
    """Ten samples: a vector and a target each."""

    def __init__(self, spoiled: int | None = None) -> None:
        self.x = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
        self.spoiled = spoiled

    def __len__(self) -> int:
        return 10

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        value = self.x[where[1]] * (math.nan if where[1] == self.spoiled else 1.0)
        return {"x": value, "y": value.sum() * 50, "index": where[1]}

    def image_id(self, index: int) -> str:
        return f"file{index}.png"


class Net(nn.Module):
    """A regression with dropout, so that random state matters."""

    def __init__(self, largest: int = 10**9) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.largest, self.seen = largest, list[int]()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append(len(batch["x"]))
        if len(batch["x"]) > self.largest:
            raise torch.OutOfMemoryError("too many for this device")
        return {"loss": (self.layers(batch["x"])[:, 0] - batch["y"]).square().mean()}


def run(
    folder: Path,
    net: nn.Module | None = None,
    samples: Numbers | None = None,
    machine: Machine = CPU,
    key: str = "",
    after_step: Callable[[float], None] | None = None,
    **changes: Any,
) -> nn.Module:
    net = net or Net()
    values: dict[str, Any] = {"epochs": 3, "effective_batch": 4, "base_lr": 0.6, "warmup_epochs": 1, **changes}
    fit(
        net,
        samples or Numbers(),
        weight_decay_groups(net, 0.05),
        training=Training(**values),
        machine=machine,
        seed=1,
        folder=folder,
        key=key,
        title="numbers",
        after_step=after_step,
    )
    return net


def test_learning_rate_by_hand() -> None:
    """Peak 0.1 * 512 / 256 = 0.2; half of it halfway through warm-up; midway of the cosine halfway to min_lr."""
    training = Training(epochs=11, warmup_epochs=1, effective_batch=512, base_lr=0.1, min_lr=0.02)
    assert learning_rate(0, per_epoch=10, training=training) == 0
    assert learning_rate(5, per_epoch=10, training=training) == pytest.approx(0.1)
    assert learning_rate(10, per_epoch=10, training=training) == pytest.approx(0.2)
    assert learning_rate(60, per_epoch=10, training=training) == pytest.approx((0.2 + 0.02) / 2)
    assert learning_rate(110, per_epoch=10, training=training) == pytest.approx(0.02)


def test_a_cosine_over_all_epochs_is_timms() -> None:
    """SimMIM's fine-tuning: 100 epochs, 20 of warm-up; after it the rate goes on at 0.905 of its peak."""
    training = Training(
        epochs=100, warmup_epochs=20, warmup_prefix=False, effective_batch=256, base_lr=5e-3, min_lr=1e-6
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=5e-3)
    theirs = CosineLRScheduler(optimizer, t_initial=1000, lr_min=1e-6, warmup_t=200, warmup_lr_init=0.0)
    for step in (0, 1, 100, 199, 200, 201, 600, 999):
        assert learning_rate(step, per_epoch=10, training=training) == pytest.approx(theirs._get_lr(step)[0]), step
    assert learning_rate(200, per_epoch=10, training=training) == pytest.approx(0.9045 * 5e-3, rel=1e-3)


def test_milestones_divide_the_rate_by_ten() -> None:
    """SimMIM's pre-training: constant after warm-up, a tenth from epoch 7 on."""
    training = Training(epochs=8, warmup_epochs=1, effective_batch=512, base_lr=0.1, lr_batch=512, milestones=(7.0,))
    rates = [learning_rate(epoch * 10, per_epoch=10, training=training) for epoch in (0, 1, 6, 7)]
    assert rates == pytest.approx([0.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("processes", "micro", "expected"), [(1, 256, (256, 16)), (8, 256, (256, 2)), (8, 300, (256, 2)), (64, 48, (32, 2))]
)
def test_accumulation_holds_the_effective_batch(processes: int, micro: int, expected: tuple[int, int]) -> None:
    steps = Steps.plan(
        10_000, Training(epochs=2, effective_batch=4096, base_lr=1), Machine(micro_batch=micro), processes
    )
    assert (steps.micro_batch, steps.accumulation) == expected
    assert steps.micro_batch * steps.accumulation * processes == 4096
    assert (steps.per_epoch, steps.total) == (2, 4)


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than one effective batch"):
        Steps.plan(10, Training(epochs=1, effective_batch=64, base_lr=1), Machine(), 1)
    with pytest.raises(ValueError, match="does not divide over 3"):
        Steps.plan(100, Training(epochs=1, effective_batch=64, base_lr=1), Machine(), 3)
    with pytest.raises(ValueError, match="257 images a process and step divide into no passes of up to 256 but of 1,"):
        Steps.plan(300, Training(epochs=1, effective_batch=257, base_lr=1), Machine(), 1)


def test_processes_see_disjoint_parts_of_the_same_batches() -> None:
    training = Training(epochs=2, effective_batch=8, base_lr=1)
    whole = Steps.plan(20, training, Machine(micro_batch=8), 1)
    one = list(StepSampler(20, whole, batch=8, seed=3, start=0, rank=0, processes=1))
    half = Steps.plan(20, training, Machine(micro_batch=2), 2)
    parts = [list(StepSampler(20, half, batch=8, seed=3, start=0, rank=rank, processes=2)) for rank in (0, 1)]
    for step, batch in enumerate(one):
        both = [sample for part in parts for micro in part[2 * step : 2 * step + 2] for sample in micro]
        assert sorted(both) == sorted(batch)
    later = list(StepSampler(20, whole, batch=8, seed=3, start=3, rank=0, processes=1))
    assert later == one[3:]


@given(
    samples=st.integers(12, 60),
    micro=st.integers(1, 3),
    passes=st.sampled_from([1, 2, 4]),
    repeats=st.integers(1, 4),
    start=st.integers(0, 5),
)
def test_repeated_augmentation(samples: int, micro: int, passes: int, repeats: int, start: int) -> None:
    """Epochs of unchanged length; copies in a row, each drawn anew; the same passes however processes share them."""
    batch = micro * passes
    training = Training(epochs=2, effective_batch=batch, base_lr=1, repeats=repeats)

    def made(processes: int, start: int = 0) -> list[list[tuple[int, int]]]:
        steps = Steps.plan(samples, training, Machine(micro_batch=micro), processes)
        place = {"batch": batch, "seed": 3, "start": start, "processes": processes, "repeats": repeats}
        ranks = [list(StepSampler(samples, steps, rank=rank, **place)) for rank in range(processes)]
        assert {len(rank) for rank in ranks} == {(steps.total - start) * steps.accumulation}
        return [part for at_once in zip(*ranks, strict=True) for part in at_once]

    alone = made(1)
    assert all(made(processes) == alone for processes in (1, 2, 4) if passes % processes == 0)
    start = min(start, len(alone) // passes)
    assert made(1, start) == alone[start * passes :]
    steps = [alone[i : i + passes] for i in range(0, len(alone), passes)]
    order = [pair for step in steps for row in zip(*step, strict=True) for pair in row]
    assert len(order) == 2 * (samples // batch) * batch
    for epoch in range(2):
        shown = order[epoch * len(order) // 2 :][: len(order) // 2]
        images = [shown[i : i + repeats] for i in range(0, len(shown), repeats)]
        for copies in images:
            assert copies == [(epoch * repeats + copy, copies[0][1]) for copy in range(len(copies))]
        assert len({copies[0][1] for copies in images}) == len(images)
    if passes >= repeats:
        assert all(len({index for _, index in part}) == len(part) for part in alone)


def test_accumulated_step_equals_the_whole_batch(tmp_path: Path) -> None:
    """Without dropout, one pass of four images and four passes of one image give the same weights."""
    weights = []
    for micro in (4, 1):
        net = Net()
        net.layers[1] = nn.Identity()
        run(tmp_path / str(micro), net, machine=Machine(device="cpu", workers=0, micro_batch=micro))
        weights.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_clipping_happens(tmp_path: Path, precision: str) -> None:
    """One SGD step of rate 1 moves the weights by exactly the clipped norm."""
    net = Net()
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    fit(
        net,
        Numbers(),
        [{"params": list(net.parameters())}],
        machine=CPU,
        seed=1,
        folder=tmp_path,
        title="numbers",
        training=Training(
            epochs=1,
            effective_batch=10,
            base_lr=256 / 10,
            optimizer="momentum",
            momentum=0.0,
            clip_grad=0.5,
            precision=precision,
        ),  # type: ignore[arg-type]
    )
    moved = torch.cat([p.detach().flatten() for p in net.parameters()]) - before
    logged = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    assert logged["grad_norm"] > 10
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_killed_and_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    """A run cut off after every single step and started again, against one that was never interrupted."""
    whole = run(tmp_path / "whole")

    class KilledError(Exception):
        pass

    total = 6
    for stop in range(1, total + 1):
        net = Net()
        left = [1]

        def after(progress: float, left: list[int] = left, stop: int = stop) -> None:
            left[0] -= 1
            if left[0] < 0 and stop < total:
                raise KilledError

        training = Training(epochs=3, effective_batch=4, base_lr=0.6, warmup_epochs=1)
        machine = Machine(device="cpu", workers=0, micro_batch=2, save_every_s=0, log_every=1)
        try:
            last_epoch = fit(
                net,
                Numbers(),
                weight_decay_groups(net, 0.05),
                training=training,
                machine=machine,
                seed=1,
                folder=tmp_path / "cut",
                title="n",
                after_step=after,
            )
        except KilledError:
            assert (tmp_path / "cut" / RESUME).exists()
    reference = run(tmp_path / "again", machine=Machine(device="cpu", workers=0, micro_batch=2))
    for name, value in net.state_dict().items():
        assert value.equal(reference.state_dict()[name]), name
    logged = [json.loads(line) for line in (tmp_path / "cut" / LOG).read_text().splitlines()]
    assert [line["step"] for line in logged] == list(range(6))
    assert last_epoch["loss"] == pytest.approx((logged[4]["loss"] + logged[5]["loss"]) / 2)  # killed between the two
    assert whole.state_dict().keys() == net.state_dict().keys()


def cut_off(folder: Path, **options: Any) -> Path:
    """A run of six steps that was killed after its fourth."""

    def kill(progress: float) -> None:
        if progress >= 4 / 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, machine=replace(CPU, save_every_s=0), after_step=kill, key="k", **options)
    return folder / RESUME


def step_9999(state: dict[str, Any]) -> None:
    state["step"] = 9999


def step_text(state: dict[str, Any]) -> None:
    state["step"] = "3"


def nan_weights(state: dict[str, Any]) -> None:
    state["model"]["layers.0.bias"][0] = math.nan


def nan_moments(state: dict[str, Any]) -> None:
    next(iter(state["optimizer"]["state"].values()))["exp_avg"].fill_(math.inf)


def other_shape(state: dict[str, Any]) -> None:
    state["model"]["layers.0.weight"] = torch.zeros(9, 6)


def missing_weight(state: dict[str, Any]) -> None:
    del state["model"]["layers.0.weight"]


def another_job(state: dict[str, Any]) -> None:
    state["key"] = "0123456789abcdef"


def no_key(state: dict[str, Any]) -> None:
    del state["key"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (step_9999, "is at step 9999 of 6"),
        (step_text, "is at step 3 of 6"),
        (nan_weights, "does not fit this training: layers.0.bias is not finite"),
        (nan_moments, "does not fit this training: the optimiser's exp_avg is not finite"),
        (other_shape, r"layers.0.weight has shape (9, 6) in place of (8, 6)"),
        (missing_weight, "layers.0.weight is in one of the two alone"),
        (another_job, "is of another job (0123456789ab)"),
        (no_key, "is no resume point of this version"),
        (None, "is damaged (RuntimeError)"),
    ],
)
def test_a_resume_point_that_does_not_fit_is_set_aside_and_training_starts_anew(
    change: Callable[[dict[str, Any]], None] | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cut_off(tmp_path)
    if change is None:
        os.truncate(file, file.stat().st_size // 2)
    else:
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)
    kept = file.read_bytes()
    found = run(tmp_path, key="k").state_dict()
    assert f"numbers: {file} " in (text := capsys.readouterr().err)
    assert f"{told}; it is kept as resume.pt.unusable, and training starts anew" in text
    assert (tmp_path / "resume.pt.unusable").read_bytes() == kept
    clean = run(tmp_path / "clean", key="k").state_dict()
    assert all(value.equal(clean[name]) for name, value in found.items())
    steps = [json.loads(line)["step"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert steps == list(range(6))


def test_a_full_disk_is_named_and_leaves_the_older_resume_point(tiny_disk: Path) -> None:
    write_resume(tiny_disk, {"step": 1, "w": torch.zeros(10)})
    before = (tiny_disk / RESUME).read_bytes()
    with pytest.raises(OSError, match=rf"cannot write {tiny_disk}/resume\.pt: .*; free space"):
        write_resume(tiny_disk, {"step": 2, "w": torch.zeros(100_000)})
    assert (tiny_disk / RESUME).read_bytes() == before
    assert list(tiny_disk.iterdir()) == [tiny_disk / RESUME]


def test_lines_of_the_log_that_tell_no_step_are_dropped(tmp_path: Path) -> None:
    cut_off(tmp_path)
    log = tmp_path / LOG
    odd = ['{"loss": 1}', "[]", "7", '{"step": "2"}', '{"step": 1', "", '{"step": -3}']
    log.write_text("\n".join([*odd, *log.read_text().splitlines()]) + "\n\xff")
    run(tmp_path, key="k")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(6))


class Frozen(nn.Module):
    """A head with batch statistics on features that are made pass by pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Linear(6, 1))
        self.seen, self.passes = list[int](), list[int]()

    def frozen_features(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.passes.append(len(batch["x"]))
        return {"x": batch["x"] * 2, "y": batch["y"]}

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append(len(batch["x"]))
        return {"loss": (self.layers(batch["x"])[:, 0] - batch["y"]).square().mean()}


@pytest.mark.parametrize("micro", [4, 2, 1])
def test_a_head_on_frozen_features_sees_the_effective_batch_whatever_the_passes(micro: int, tmp_path: Path) -> None:
    whole, net = Frozen(), Frozen()
    run(tmp_path / "whole", whole)
    run(tmp_path / "parts", net, machine=replace(CPU, micro_batch=micro))
    assert set(net.passes) == {micro}
    assert net.seen == [4] * 6
    assert all(value.equal(whole.state_dict()[name]) for name, value in net.state_dict().items())


def train_frozen(rank: int, folder: Path) -> None:
    torch.save(run(folder, Frozen(), machine=replace(CPU, micro_batch=1)).state_dict(), folder / str(rank))


def test_a_head_on_frozen_features_is_the_same_on_two_processes(tmp_path: Path) -> None:
    in_two_processes(train_frozen, tmp_path, meet=tmp_path / "meet")
    alone = run(tmp_path / "alone", Frozen()).state_dict()
    for rank in range(2):
        for name, value in torch.load(tmp_path / str(rank), weights_only=True).items():
            assert torch.allclose(value, alone[name], atol=1e-6), name


def test_non_finite_loss_names_step_files_and_last_good_state(tmp_path: Path) -> None:
    machine = Machine(device="cpu", workers=0, micro_batch=4, save_every_s=0)
    with pytest.raises(NonFiniteLossError, match=r"loss is nan at step \d.*file3\.png"):
        run(tmp_path, samples=Numbers(spoiled=3), machine=machine)
    if (tmp_path / RESUME).exists():
        state = torch.load(tmp_path / RESUME, weights_only=True)["model"]
        assert all(value.isfinite().all() for value in state.values())


def test_out_of_memory_halves_the_pass_and_keeps_the_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net(largest=1)
    run(tmp_path, net)
    assert net.seen[:3] == [4, 2, 1]
    assert set(net.seen[3:]) == {1}
    assert "passes of 1 images from now on, the effective batch stays 4" in capsys.readouterr().err


def test_decay_spares_biases_norms_and_positions() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.zeros(1, 3, 4))
            self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    parts = Parts()
    decayed, free = weight_decay_groups(parts, 0.05)
    assert [id(p) for p in decayed["params"]] == [id(parts.linear.weight)]
    assert (decayed["weight_decay"], free["weight_decay"], len(free["params"])) == (0.05, 0.0, 4)


def test_lamb_trains(tmp_path: Path) -> None:
    """RSB's optimiser takes betas, spares biases of decay, and moves every weight."""
    before = Net().state_dict()
    net = run(tmp_path, optimizer="lamb", lr_batch=4, base_lr=8e-3)
    assert all(not value.equal(before[name]) for name, value in net.state_dict().items())
    lines = [json.loads(line)["loss"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert all(math.isfinite(loss) for loss in lines)


def train_with_statistics(rank: int, folder: Path) -> None:
    net = Net()
    net.layers.insert(1, nn.BatchNorm1d(8))
    run(folder, net)
    torch.save(net.state_dict(), folder / str(rank))


def test_processes_end_with_the_same_statistics(tmp_path: Path) -> None:
    """BatchNorm sees a process's own share; the main one's running statistics stand for all."""
    in_two_processes(train_with_statistics, tmp_path, meet=tmp_path / "meet")
    states = [torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2)]
    assert states[0]["layers.1.num_batches_tracked"] == 6
    for name, value in states[0].items():
        assert value.equal(states[1][name]), name


@pytest.mark.slow
def test_compiled_training_gives_the_same_weights(tmp_path: Path) -> None:
    nets = []
    for compiled in (False, True):
        net = Net()
        net.layers[1] = nn.Identity()
        run(tmp_path / str(compiled), net, machine=Machine(device="cpu", workers=0, micro_batch=4, compile=compiled))
        nets.append(net)
    for name, value in nets[0].state_dict().items():
        assert torch.allclose(value, nets[1].state_dict()[name], atol=1e-4), name


def test_weights_that_are_not_finite_after_the_last_step_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step: its loss is still finite."""
    monkeypatch.setattr("cim_bench.engine.fit.learning_rate", lambda *_, **__: 1e38)
    once = {"epochs": 1, "effective_batch": 10, "warmup_epochs": 0, "optimizer": "sgd", "lr_batch": 10}
    machine = Machine(device="cpu", workers=0, micro_batch=10)
    with pytest.raises(NonFiniteLossError, match=r"numbers: weights are not finite after 1 steps; lower the rate"):
        run(tmp_path, machine=machine, **once)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_saves_the_step_under_way_and_the_run_goes_on_with_the_same_bits(
    tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    whole = run(tmp_path / "whole")
    left = [3]

    def after(_progress: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    def cut() -> nn.Module:
        net = Net()
        fit(
            net,
            Numbers(),
            weight_decay_groups(net, 0.05),
            training=Training(epochs=3, effective_batch=4, base_lr=0.6, warmup_epochs=1),
            machine=CPU,
            seed=1,
            folder=tmp_path / "cut",
            title="numbers",
            after_step=after,
        )
        return net

    with raising_terminated():
        with pytest.raises(error):
            cut()
        assert torch.load(tmp_path / "cut" / RESUME, weights_only=True)["step"] == 3
        again = cut()
    for name, value in again.state_dict().items():
        assert value.equal(whole.state_dict()[name]), name
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def cut_off_by_a_signal_to_one(rank: int, folder: Path) -> None:
    """The second of two processes is asked to end in its third step; what each raises, where the main one saved."""
    left = [3]

    def after(_progress: float) -> None:
        left[0] -= 1
        if left[0] == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with raising_terminated(), pytest.raises(Terminated):
        run(folder, machine=Machine(device="cpu", workers=0, micro_batch=2), after_step=after)
    assert torch.load(folder / RESUME, weights_only=True)["step"] == 4


def go_on_in_two(rank: int, folder: Path) -> None:
    net = run(folder, machine=Machine(device="cpu", workers=0, micro_batch=2))
    if rank == 0:
        torch.save(net.state_dict(), folder / "state")


def test_of_several_processes_all_end_after_the_same_step_when_one_is_asked_to(tmp_path: Path) -> None:
    in_two_processes(go_on_in_two, tmp_path / "whole", meet=tmp_path / "meet-1")
    in_two_processes(cut_off_by_a_signal_to_one, tmp_path / "cut", meet=tmp_path / "meet-2")
    in_two_processes(go_on_in_two, tmp_path / "cut", meet=tmp_path / "meet-3")
    whole, cut = (torch.load(tmp_path / name / "state", weights_only=True) for name in ("whole", "cut"))
    for name, value in whole.items():
        assert value.equal(cut[name]), name


def test_a_second_interrupt_acts_at_once() -> None:
    def interrupted_twice() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("still here")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()


def test_a_patient_process_holds_a_second_interrupt_back() -> None:
    reached = []

    def interrupted_twice() -> None:
        with held_back(patient=True):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == ["the end"]


def test_an_interrupt_that_nobody_asked_for_acts_at_the_end() -> None:
    reached = []

    def interrupted() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end"]


def test_a_full_disk_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "json", type("Full", (), {"dumps": full}))
    with pytest.raises(
        OSError, match=rf"cannot write {tmp_path}/{LOG} and the curves beside it: No space left .*; free"
    ):
        run(tmp_path)
