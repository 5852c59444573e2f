import contextlib
import json
import math
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open
from torch import Tensor, nn

from stav2a.training import loop
from stav2a.training.denoising import Epsilon
from stav2a.training.loop import CompiledGradientError, DivergedError, NothingToTrainError
from stav2a.training.objective import (
    Batch,
    Group,
    History,
    Inputs,
    TrainingContext,
    TrainingSpec,
    generator,
    pieces,
)
from stav2a.training.trainer import AccelerateTrainer, adamw, adamw_8bit
from stav2a.utils.errors import UsageError


class Net(nn.Module):
    """Whatever may go wrong when resuming: batch statistics, dropout, and a part that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.idle = nn.Linear(2, 2)

    def loss(self, x: Tensor) -> Tensor:
        return (self.layers(x) - x.sum(dim=1, keepdim=True)).square().mean()


def draw(rng: torch.Generator) -> Batch:
    return (torch.randn(16, 3, generator=rng),)


def row(rng: torch.Generator | None = None) -> Batch:
    """What a loss needs that does not look at its batch."""
    return (torch.zeros(1),)


def fit(plan: TrainingSpec, work: TrainingContext, **settings: Any) -> History:
    AcceleratorState._reset_state()  # it keeps one precision a process; a run has no more
    return AccelerateTrainer(**settings).fit(plan, work)


class Logged(list[tuple[str, float, int]]):
    def __call__(self, name: str, value: float, step: int) -> None:
        self.append((name, value, step))


def net() -> Net:
    torch.manual_seed(0)
    return Net().train()


def work(
    model: Any, folder: Path, log: Any = lambda name, value, step: None, seed: int = 0
) -> TrainingContext:
    return TrainingContext(model, None, folder, seed, Epsilon(), frozenset(), log, None)  # type: ignore[arg-type]


def plan(model: Net, steps: int = 12, **changes: Any) -> TrainingSpec:
    settings: dict[str, Any] = {
        "draw": draw,
        "loss": model.loss,
        "groups": [Group([model.layers], 1e-2), Group([model.idle], 1e-3)],
        "held_out": lambda: draw(generator(9, "validation", 0)),
        "ema_decay": 0.9,
        **changes,
    }
    return TrainingSpec("toy", steps, **settings)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


class Killed(Exception):
    pass


def save_at_every_step(monkeypatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "SAVING", math.inf)


def killed_at(step: int) -> Any:
    """The batches, until the process is stopped in some step."""
    calls = iter(range(step))

    def drawing(rng: torch.Generator) -> Batch:
        if next(calls, None) is None:
            raise Killed
        return draw(rng)

    return drawing


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stops", [(1,), (7,), (4, 5), (11,)])
def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(tmp_path, monkeypatch, stops, ema_decay):
    unbroken, log = net(), Logged()
    (tmp_path / "whole").mkdir()
    history = fit(plan(unbroken, ema_decay=ema_decay), work(unbroken, tmp_path / "whole", log))

    save_at_every_step(monkeypatch)
    for stop in stops:
        model = net()
        with pytest.raises(Killed):
            fit(plan(model, draw=killed_at(stop), ema_decay=ema_decay), work(model, tmp_path))
    model, again = net(), Logged()
    resumed = fit(plan(model, ema_decay=ema_decay), work(model, tmp_path, again))
    assert same(state(model), state(unbroken))
    assert json.dumps(resumed) == json.dumps(history)
    assert again == log  # a tracker gets the whole curve, whatever came before


class NestedAdamW(torch.optim.AdamW):
    """AdamW that saves its means inside another dictionary, as bitsandbytes' 8-bit one does."""

    def state_dict(self) -> Any:
        saved = super().state_dict()
        nested = {
            number: {"step": known["step"], "means": {n: v for n, v in known.items() if n != "step"}}
            for number, known in saved["state"].items()
        }
        return {**saved, "state": nested}

    def load_state_dict(self, state_dict: Any) -> None:
        flat = {n: {"step": known["step"], **known["means"]} for n, known in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": flat})


def test_an_optimizer_with_nested_state_resumes(tmp_path, monkeypatch):
    unbroken, model = net(), net()
    (tmp_path / "whole").mkdir()
    fit(plan(unbroken), work(unbroken, tmp_path / "whole"), optimizer=NestedAdamW)
    save_at_every_step(monkeypatch)
    with pytest.raises(Killed):
        fit(plan(model, draw=killed_at(7)), work(model, tmp_path), optimizer=NestedAdamW)
    model = net()
    fit(plan(model), work(model, tmp_path), optimizer=NestedAdamW)
    assert same(state(model), state(unbroken))


def test_eight_bits_of_the_optimizer_resume(tmp_path, monkeypatch):
    """bitsandbytes keeps small tensors in float32; the second layer is large enough for bytes."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    unbroken, folder = net(), tmp_path / "whole"
    folder.mkdir()

    def larger(model: Net) -> Net:
        model.idle = nn.Linear(80, 80)
        return model

    def plan_of(model: Net, **changes: Any) -> TrainingSpec:
        loss = lambda x: model.loss(x) + model.idle.weight.square().mean()  # noqa: E731 - a name for one line
        return plan(model, loss=loss, **changes)

    fit(plan_of(larger(unbroken)), work(unbroken, folder), optimizer=adamw_8bit)
    save_at_every_step(monkeypatch)
    model = larger(net())
    with pytest.raises(Killed):
        fit(plan_of(model, draw=killed_at(7)), work(model, tmp_path), optimizer=adamw_8bit)
    with safe_open(tmp_path / "toy.safetensors", framework="pt") as saved:
        assert torch.uint8 in {saved.get_tensor(name).dtype for name in saved.keys()}
    model = larger(net())
    fit(plan_of(model), work(model, tmp_path), optimizer=adamw_8bit)
    assert same(state(model), state(unbroken))


@pytest.mark.parametrize("steps", [1, 12])
def test_inputs_fetched_ahead_give_the_same_bits(tmp_path, steps):
    ends = []
    for ahead in (False, True):
        model, folder = net(), tmp_path / str(ahead)
        folder.mkdir()
        fetched: list[str] = []

        def fetch(x: Tensor, fetched: Any = fetched) -> Inputs:
            fetched.append(threading.current_thread().name)
            return (x,)

        spec = plan(model, steps, fetch=fetch, held_out=None)
        history = fit(spec, work(model, folder), prefetch=ahead)
        assert len(fetched) == steps and all(name.startswith("fetching") == ahead for name in fetched)
        ends.append((state(model), history))
    (alone, history), (ahead_of, same_history) = ends
    assert same(alone, ahead_of) and history == same_history


def test_an_error_of_a_fetch_ahead_ends_the_stage(tmp_path):
    def fetch(x: Tensor) -> Inputs:
        raise Killed

    model = net()
    with pytest.raises(Killed):
        fit(plan(model, fetch=fetch), work(model, tmp_path), prefetch=True)


def test_a_resumed_run_does_not_repeat_what_was_done(tmp_path, monkeypatch):
    save_at_every_step(monkeypatch)
    model = net()
    with pytest.raises(Killed):
        fit(plan(model, draw=killed_at(8)), work(model, tmp_path))
    model = net()
    with pytest.raises(Killed):  # 4 of 12 steps are left, and no more
        fit(plan(model, draw=killed_at(3)), work(model, tmp_path))
    model = net()
    fit(plan(model, draw=killed_at(1)), work(model, tmp_path))


def test_a_torn_checkpoint_is_never_seen(tmp_path, monkeypatch):
    save_at_every_step(monkeypatch)
    seen: list[set[str]] = []
    model = net()

    def drawing(rng: torch.Generator) -> Batch:
        seen.append({path.name for path in tmp_path.iterdir()})
        return draw(rng)

    fit(plan(model, draw=drawing), work(model, tmp_path))
    assert seen[0] == set() and all(names == {"toy.safetensors"} for names in seen[1:])


CHECKPOINT_DAMAGES = {
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGES.values(), ids=CHECKPOINT_DAMAGES)
def test_a_damaged_checkpoint_is_not_continued_from(tmp_path, monkeypatch, damage, caplog):
    unbroken = net()
    (tmp_path / "whole").mkdir()
    fit(plan(unbroken), work(unbroken, tmp_path / "whole"))
    save_at_every_step(monkeypatch)
    model = net()
    with pytest.raises(Killed):
        fit(plan(model, draw=killed_at(7)), work(model, tmp_path))
    file = tmp_path / "toy.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    model = net()
    fit(plan(model), work(model, tmp_path))
    assert same(state(model), state(unbroken))
    assert f"{file} is damaged" in caplog.text


def test_the_seed_decides_all_randomness(tmp_path):
    ends = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        model, folder = net(), tmp_path / str(number)
        torch.manual_seed(number)  # dropout must not depend on what ran before
        fit(plan(model), work(model, folder, seed=seed))
        ends.append(state(model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


class Point(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1))


def test_parameters_without_a_gradient_are_found_and_nothing_is_changed():
    model = net()
    before = state(model)
    inputs = draw(torch.Generator().manual_seed(0))
    parameters = [*model.layers.parameters(), *model.idle.parameters()]
    objective = loop.LossModule(nn.ModuleList([model]), model.loss)
    found = loop.unused(objective, inputs, parameters, contextlib.nullcontext)
    assert [id(p) for p in found] == [id(p) for p in model.idle.parameters()]
    assert same(state(model), before) and not any(p.grad is not None for p in parameters)


def test_the_best_validated_weights_are_kept(tmp_path):
    point, seen = Point(), []

    def loss(_: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return -point.x.sum()
        seen.append(point.x.item())
        return (point.x - 0.3).abs().sum()

    groups = [Group([point], 0.05)]
    fit(TrainingSpec("toy", 20, row, loss, groups, held_out=row, validations=10), work(point, tmp_path))
    assert len(seen) == 10 and seen == sorted(seen)
    best = min(seen, key=lambda x: abs(x - 0.3))
    assert best not in (seen[0], seen[-1])
    assert point.x.item() == best


def test_without_validation_the_averaged_weights_are_kept(tmp_path):
    point, seen = Point(), []

    def loss(_: Tensor) -> Tensor:
        seen.append(point.x.item())
        return -point.x.sum()

    fit(
        TrainingSpec("toy", 30, row, loss, [Group([point], 0.05)], ema_decay=0.8),
        work(point, tmp_path / "ema"),
    )
    ends, averaged = point.x.item(), 0.0
    last = Point()
    fit(
        TrainingSpec("toy", 30, row, lambda _: -last.x.sum(), [Group([last], 0.05)]),
        work(last, tmp_path / "last"),
    )
    for step, x in enumerate([*seen[1:], last.x.item()]):
        decay = min(0.8, (1 + step) / (10 + step))
        averaged = decay * averaged + (1 - decay) * x
    assert ends == pytest.approx(averaged, rel=1e-5)
    assert 0 < ends < last.x.item()


def test_validation_sees_the_averaged_weights_and_leaves_training_alone(tmp_path):
    def trace(validate: bool, folder: Path) -> tuple[list[float], list[float]]:
        point, trained, validated = Point(), [], []

        def loss(_: Tensor) -> Tensor:
            (trained if point.training else validated).append(point.x.item())
            return -point.x.sum()

        point.train()
        groups = [Group([point], 0.05)]
        fit(
            TrainingSpec("toy", 12, row, loss, groups, held_out=row if validate else None, ema_decay=0.9),
            work(point, folder),
        )
        return trained, validated

    with_it, validated = trace(True, tmp_path / "a")
    without, _ = trace(False, tmp_path / "b")
    assert with_it == without
    assert len(validated) == 4 and all(0 < v < x for v, x in zip(validated, with_it[3::3], strict=False))


def test_a_trainable_parameter_outside_the_optimizer_is_an_error(tmp_path):
    model = net()
    with pytest.raises(
        UsageError, match=r"2 parameters require a gradient and are in no group .* idle.weight"
    ):
        fit(plan(model, groups=[Group([model.layers], 1e-2)]), work(model, tmp_path))


def test_frozen_parameters_stay_as_they_are(tmp_path):
    model = net()
    model.layers[0].requires_grad_(False)
    before = state(model)
    fit(plan(model), work(model, tmp_path))
    after = state(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "layers.3.weight" in changed
    assert not any(name.startswith(("layers.0.", "idle.")) for name in changed)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_stage_with_advice(tmp_path, wrong):
    model = net()
    calls = iter(range(100))

    def loss(x: Tensor) -> Tensor:
        training = torch.is_grad_enabled()
        return model.loss(x) * (wrong if training and next(calls) == 4 else 1.0)

    with pytest.raises(
        DivergedError, match=rf"toy: the loss became {wrong} at step 5\. Lower its learning rate"
    ):
        fit(plan(model, loss=loss), work(model, tmp_path))


def test_a_stage_whose_blocks_are_frozen_is_told(tmp_path):
    model = net().requires_grad_(False)
    with pytest.raises(NothingToTrainError, match=r"toy: nothing to train, .* Bind stage\.toy\.steps = 0"):
        fit(plan(model), work(model, tmp_path))


def test_losses_are_noted_with_their_steps_and_logged(tmp_path):
    model, log = net(), Logged()
    history = fit(plan(model, steps=40), work(model, tmp_path, log))
    assert [step for step, _ in history["loss"]] == [10, 20, 30, 40]
    assert [step for step, _ in history["validation_loss"]] == [10, 20, 30, 40]
    noted = {(f"toy/{name}", value, step) for name, points in history.items() for step, value in points}
    assert set(log) == noted and len(log) == 8


def test_the_loss_goes_down_and_the_model_is_left_ready_for_use(tmp_path):
    model = net()
    history = fit(plan(model, steps=200, validations=10), work(model, tmp_path))
    values = [value for _, value in history["validation_loss"]]
    assert values[-1] < 0.3 * values[0]
    assert not any(m.training for m in model.modules() if m is not model)


def test_every_group_has_its_own_rate(tmp_path):
    slow, fast = Point(), Point()
    both = nn.ModuleList([slow, fast])
    groups = [Group([slow], 0.01), Group([fast], 0.1)]
    fit(
        TrainingSpec("toy", 10, row, lambda _: -(slow.x + fast.x).sum(), groups),
        work(both, tmp_path),
        optimizer=partial(adamw, weight_decay=0.0),
    )
    assert fast.x.item() == pytest.approx(10 * slow.x.item(), rel=1e-4)


def test_each_step_has_its_own_randomness():
    draws = [
        torch.rand(1, generator=generator(*key)).item()
        for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    ]
    assert len(set(draws)) == 4
    assert torch.rand(1, generator=generator(0, "a", 0)).item() == draws[0]


def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(tmp_path):
    ends = []
    for number, size in enumerate((None, 5)):
        model, folder = net(), tmp_path / str(number)
        model.layers[1] = nn.Identity()  # batch statistics are a piece's own
        model.layers[2] = nn.Identity()  # and so is dropout
        folder.mkdir()
        history = fit(plan(model), work(model, folder), per_device_batch_size=size)
        ends.append((state(model), history))
    (whole, history), (in_pieces, same_history) = ends
    for name, t in whole.items():
        torch.testing.assert_close(in_pieces[name], t, rtol=1e-4, atol=1e-6)
    for name, points in history.items():
        assert [v for _, v in same_history[name]] == pytest.approx([v for _, v in points], rel=1e-5)


def test_a_loss_that_compares_rows_is_given_all_of_them(tmp_path):
    model, seen = net(), set()

    def loss(x: Tensor) -> Tensor:
        seen.add(len(x))
        return model.loss(x)

    fit(plan(model, loss=loss, divisible=False), work(model, tmp_path), per_device_batch_size=5)
    assert seen == {16}


def test_pieces_share_a_batch_among_processes():
    batch = (torch.arange(7), torch.arange(7) * 10)
    shares = [list(pieces(batch, 2, process=number, processes=3)) for number in range(3)]
    assert [[rows[0].tolist() for rows, _ in share] for share in shares] == [
        [[0, 1], [2]],
        [[3, 4]],
        [[5, 6]],
    ]
    assert all(torch.equal(second, first * 10) for share in shares for (first, second), _ in share)
    assert sum(weight for share in shares for _, weight in share) == pytest.approx(3)  # their mean is 1


def test_bf16_trains_with_weights_in_float32(tmp_path):
    model, exact = net(), net()
    dtypes = set()

    def loss(x: Tensor) -> Tensor:
        dtypes.add(model.layers[0](x).dtype)
        return model.loss(x)

    history = fit(plan(model, loss=loss, steps=40), work(model, tmp_path), mixed_precision="bf16")
    same = fit(plan(exact, steps=40), work(exact, tmp_path / "exact"))
    assert dtypes == {torch.bfloat16}
    assert {t.dtype for name, t in state(model).items() if t.is_floating_point()} == {torch.float32}
    (_, ends), (_, exactly) = history["validation_loss"][-1], same["validation_loss"][-1]
    assert ends == pytest.approx(exactly, rel=0.1) and ends != exactly


@pytest.mark.slow
def test_a_compiled_step_is_one_graph_and_learns_the_same(tmp_path, monkeypatch):
    # A cache of its own: two processes that compile at once have read each other's unfinished files.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))

    def ends(compiled: bool) -> float:
        model, folder = net(), tmp_path / str(compiled)
        folder.mkdir()  # for a checkpoint, which a slow compiler leaves time for
        history = fit(plan(model, held_out=None), work(model, folder), compiled=compiled)
        return history["loss"][-1][1]

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert ends(compiled=True) == pytest.approx(ends(compiled=False), rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(("factor", "told"), [(1.5, "50%"), (math.nan, "nan%")])
def test_a_compiled_step_with_another_gradient_is_refused(tmp_path, monkeypatch, factor, told):
    class Faulty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return factor * model.loss(x)

    model = net()
    monkeypatch.setattr(torch, "compile", lambda objective, options: Faulty())
    with pytest.raises(
        CompiledGradientError, match=rf"gradient is {told} off .* on cpu: a fault of the comp"
    ):
        fit(plan(model), work(model, tmp_path), compiled=True)


def test_8_bit_adamw_says_what_it_needs(tmp_path):
    model = net()
    with pytest.raises(UsageError, match=r"needs bitsandbytes, .* pip install bitsandbytes\. Or bind"):
        fit(plan(model), work(model, tmp_path), optimizer=adamw_8bit)
