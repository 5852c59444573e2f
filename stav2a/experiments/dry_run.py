"""Dry run of a recipe: all of its parts in their order, in seconds at any size.

Every block is called, every stage computes one loss, the sampler takes its first steps, and every metric
measures a few clips. A small model gets random weights for it; a large one stays on torch's meta device,
whose tensors have a shape and no numbers. What can't work is refused here, before anything is trained.
"""

import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stav2a import registry
from stav2a.data.clip import Clip
from stav2a.data.front_ends import AudioLDMMel
from stav2a.data.media import FrameGrid
from stav2a.data.prepared.reader import PreparedClips
from stav2a.evaluation.scores import evaluate, mean_of_samplings
from stav2a.experiments.experiment import Experiment
from stav2a.metrics.score import ArraySounds, ClassifierOutputs, EvaluationSet, MetricError, Score
from stav2a.models import audit
from stav2a.models.stav2a import STAV2A, VIDEO, mel_frames
from stav2a.recipe import describing
from stav2a.recipe.parsing import leaves, mapped
from stav2a.registry import Configured, Entry, RegistryError, entry_of, fails, name_of, selector_of
from stav2a.sampling.fast.engines import Eager
from stav2a.slots import E_V, ROLES, SLOTS
from stav2a.training.corpus import Corpus, check_prepared
from stav2a.training.loop import parameter_groups
from stav2a.training.objective import (
    Batch,
    History,
    Inputs,
    TrainingContext,
    TrainingSpec,
    generator,
    on_device,
    pieces,
)
from stav2a.training.train import PlannedStage, changed_by, frozen_before
from stav2a.utils import distributed
from stav2a.utils.checkpoints import CheckpointError, RequestedWeights
from stav2a.utils.contents import Contents
from stav2a.utils.errors import StaV2AError, UsageError

SMALL = 50e6  # parameters of a model that gets random weights,
SMALL_CLIP = 1e6  # and numbers in the video of a clip
CLIPS = 4  # of each split
MEASURED = 16  # clips
ROWS = 2  # of a batch of which a loss is computed
STEPS = 2  # of the sampler
SECONDS = 1.0  # of the sounds that metrics measure

Result = TypeVar("Result")


class NumbersNeededError(RuntimeError):
    """A part that reads the numbers of a tensor which has none."""


READERS = {
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.__array__),
}


# Numbers are as they should be: no condition on all of them fails, none on any of them is met.
CHECKS = {Tensor.all: True, torch.all: True, Tensor.any: False, torch.any: False}


class ShapesOnly(TorchFunctionMode):
    """Let tensors on the meta device meet others: the results, and copies to any device, are there too."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [args, *(kwargs or {}).values()]
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in leaves(given)):
            if func in CHECKS and len(given) == 1 and len(args) == 1:  # of a whole tensor
                return torch.tensor(CHECKS[func])
            if func in READERS:
                raise NumbersNeededError(f"{func.__name__} of a tensor")
            if func in (Tensor.cpu, Tensor.cuda):
                return args[0]
            if func is Tensor.__getitem__:  # rows may be chosen by numbers
                return func(*args)
            to = func is Tensor.to

            def moved(value: Any) -> Any:
                if isinstance(value, Tensor):
                    return value if value.is_meta else value.to("meta")
                if isinstance(value, torch.device) or (to and isinstance(value, str)):
                    return "meta"
                return mapped(moved, value)

            args, kwargs = moved(args), {name: moved(value) for name, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


class BlankCorpus(Corpus):
    """A few clips of every split without content, of the shapes that a model asks for.

    They are on the CPU, as those of a run, or on the meta device beside a model there.
    """

    def __init__(self, model: STAV2A) -> None:
        self.model, self._encodings = model, {}
        count = 2 * CLIPS
        self.clips = [
            Clip(str(i), Path(), "a sound", ("train", "validation")[i // CLIPS], label=("a", "b")[i % 2])
            for i in range(count)
        ]
        blank = partial(torch.zeros, device="meta" if _device(model).type == "meta" else "cpu")
        for slot in model.encoders:
            grid = FrameGrid.of(model.block(slot), model.duration_s)
            frames = blank(count, grid.length, 3, grid.size, grid.size, dtype=torch.uint8)
            setattr(self, VIDEO[slot].frames, frames)
        self.mel = blank(count, 1, mel_frames(model.front_end, model.duration_s), model.front_end.bins)
        self.onsets = blank(count, model.latent_shape[1])

    def _resampled_mel(self) -> Tensor:
        shape = len(self.clips), 1, mel_frames(AudioLDMMel, self.model.duration_s), AudioLDMMel.bins
        return torch.zeros(shape, device=self.onsets.device)

    def rows(self, split: str, data_filter: object) -> Tensor:
        return torch.tensor([row for row, clip in enumerate(self.clips) if clip.split == split])

    def _encoded(self, kind: str, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if kind not in self._encodings:
            self._encodings[kind] = encode()
        return self._encodings[kind]


class OneLoss:
    """Trainer that computes one loss of a plan, and trains nothing."""

    def fit(self, plan: TrainingSpec, work: TrainingContext) -> History:
        """Compute the loss of some rows of a batch, and of the held-out clips.

        Raises:
            NothingToTrainError: All parameters are frozen.
            UsageError: A parameter is in no group, or the loss is no number with a gradient.
        """
        parameter_groups(plan, work)
        most = ROWS if plan.divisible else None

        def inputs(batch: Batch) -> Inputs:
            rows, _ = next(pieces(batch, most))
            with torch.no_grad():
                return on_device(plan.fetch(*rows), _device(work.model))

        given = inputs(plan.draw(generator(work.seed, plan.name, 0)))
        loss = plan.loss(*given)
        if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            if isinstance(loss, Tensor) and loss.shape == ():
                found = "a number without a gradient"
            raise UsageError(
                f"{plan.name}: the loss is {found}; expected the mean over rows, a scalar tensor "
                "that depends on the parameters of the plan's groups."
            )
        if plan.held_out:
            held_out = inputs(plan.held_out())
            if [_size(each) for each in held_out] != [_size(each) for each in given]:
                plan.loss(*held_out)
        return {}


@dataclass(frozen=True)
class DryRun:
    """The outcome of a dry run that found no fault.

    Args:
        model: The model on the meta device; None where it can't be built without its weights.
        requested: Weights that a run would load.
        unchecked: Parts that could not be checked without numbers, and the reasons.
        left_out: Parts that the labels of the clips do not allow.
        remarks: Lines on blocks that keep random weights, and on settings without effect.
    """

    model: STAV2A | None
    requested: Sequence[RequestedWeights] = ()
    unchecked: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def attempt(
        self, slot: str, factory: Any, given: str, call: Callable[[], Result], *, otherwise: Result
    ) -> Result:
        """Result of a component's call.

        Args:
            slot: Its slot.
            factory: Its factory.
            given: Input of the call, for errors.
            call: The call.
            otherwise: Result of a call that needs numbers, which is noted.

        Raises:
            RegistryError: The call fails.
        """
        try:
            with ShapesOnly():
                return call()
        except StaV2AError:
            raise
        except (NumbersNeededError, NotImplementedError) as error:  # torch's, of what has no meta version
            reason = next(iter(str(error).splitlines()), "")
            self.unchecked.append(f"{selector_of(slot, factory)} needs numbers: {reason}")
            return otherwise
        except Exception as error:
            raise fails(slot, factory, error, given) from error


def dry_run(experiment: Experiment) -> DryRun:
    """Go through all that a run of the loaded recipe does, without weights, data or training.

    Random numbers drawn later are the same with and without it. Nothing is written or downloaded.

    Raises:
        StaV2AError: A part can't work: its values, its sizes beside its neighbours', or this machine.
    """
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        experiment.check()
        _try_machine(experiment)
        clips = experiment.listed_clips()
        experiment, left_out = experiment.with_labels_of(clips)
        run = _assembled(experiment)
        run.left_out.extend(left_out)
        run.remarks.extend([*experiment.random_blocks(run.model), *experiment.without_effect()])
        if clips:
            _check_clips(run, clips, experiment)
        if run.model is not None:
            model = _usable(run.model, experiment)
            _call_blocks(run, model, experiment)
            _compute_losses(run, model, experiment, Path(folder))
        _measure(run, experiment)
    return run


def _usable(model: STAV2A, experiment: Experiment) -> STAV2A:
    """A model that stages may change: a small one with random weights, on this process's device."""
    grids = (FrameGrid.of(model.block(slot), model.duration_s) for slot in model.encoders)
    video = max(grid.length * 3 * grid.size**2 for grid in grids)
    if sum(p.numel() for p in model.parameters()) > SMALL or video > SMALL_CLIP:
        return copy.deepcopy(model)
    return _skeleton(experiment, distributed.device())[0]


def _skeleton(experiment: Experiment, device: torch.device | str) -> tuple[STAV2A, list[RequestedWeights]]:
    parts = {**experiment.blocks(), "front_end": experiment.front_end}
    return audit.skeleton(parts, duration_s=experiment.duration_s, device=device)


def _device(model: STAV2A) -> torch.device:
    return next(model.backbone.parameters()).device


def _assembled(experiment: Experiment) -> DryRun:
    try:
        return DryRun(*_skeleton(experiment, "meta"))
    except (CheckpointError, OSError, RuntimeError) as error:  # of a component that needs its numbers
        reason = error.message if isinstance(error, CheckpointError) else str(error).splitlines()[0]
        return DryRun(None, unchecked=[f"the model can't be built without its weights: {reason}"])


def _check_clips(run: DryRun, clips: Sequence[Clip], experiment: Experiment) -> None:
    """Hold the clips, and what was prepared of them, against what the recipe asks."""
    dataset, decisions, contents = experiment.dataset(), None, Contents()
    if isinstance(dataset, PreparedClips) and run.model is not None:
        decisions = check_prepared(
            dataset.prepared,
            run.model,
            onset_detector=experiment.described("onset_detector"),
            audio_peak=experiment.audio_peak,
            filters=experiment.data_filters(contents),
        )
    experiment.check_clips(clips, decisions, contents)


def _call_blocks(run: DryRun, model: Any, experiment: Experiment) -> None:
    """Call every block on the outputs of those before, and hold the shapes against those of its slot."""
    channels, frames, bins = model.latent_shape
    front_end = model.front_end
    sizes = {
        **{"B": ROWS, "M": front_end.bins},
        **{"D_c": model.text_encoder.dim, "D_l": model.local_head.dim, "C": channels, "T": frames},
        **{"1": 1, "3": 3, "F": bins, "Tm": mel_frames(front_end, model.duration_s)},
    }
    sizes["S"] = sizes["Tm"] * front_end.hop

    def call(slot: str, method: str = "forward") -> None:
        block, factory, shapes = (
            model.block(slot),
            getattr(experiment, slot),
            SLOTS[ROLES.get(slot, slot)].shapes[method],
        )
        given = {name: known[name] if name in known else blank(shape) for name, shape in shapes.takes.items()}
        text = ", ".join(f"{name} {_size(value)}" for name, value in given.items())
        function = {"unet": predict}.get(slot) or (block if method == "forward" else getattr(block, method))
        found = run.attempt(slot, factory, text, lambda: function(*given.values()), otherwise=None)
        if found is None:
            return
        found = found if isinstance(found, tuple) else (found,)
        if len(found) != len(shapes.gives) or not all(isinstance(each, Tensor) for each in found):
            raise _wrong(slot, factory, method, f"{len(found)} values", " and ".join(shapes.gives))
        for (name, shape), value in zip(shapes.gives.items(), found, strict=True):
            expected = [sizes.get(letter, letter) for letter in shape]
            fits = len(shape) == value.ndim and all(
                sizes.setdefault(letter, got) == got for letter, got in zip(shape, value.shape, strict=True)
            )
            if not fits:
                promised = f"({', '.join(shape)}) = ({', '.join(map(str, expected))})"
                raise _wrong(slot, factory, method, f"{name} {tuple(value.shape)}", f"{name} {promised}")
            known[name] = value

    def predict(z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """Prediction of the denoiser by itself, which is called as backbones and stages call it."""
        found = model.block("unet")(z_t, t, c, encoder_attention_mask=mask, return_dict=False)
        if not isinstance(found, tuple):
            promised = "a tuple whose first value is the prediction, with return_dict=False"
            raise _wrong("unet", experiment.unet, "forward", type(found).__name__, promised)
        return found[0]

    def blank(shape: Sequence[str]) -> Tensor:
        """Stand-in of what a block that needs numbers would give."""
        return torch.zeros([sizes.get(each, 1) for each in shape], device=device)

    device = _device(model)
    times = torch.zeros(ROWS, dtype=torch.long, device=device)
    known: dict[str, Any] = {"captions": ["", "a sound"], "t": times}
    with torch.no_grad():
        model.eval()
        e_tv: list[Tensor] = []
        for slot in reversed(model.encoders):  # the one of the local head first
            grid, encoder = FrameGrid.of(model.block(slot), model.duration_s), model.block(slot)
            sizes |= {"L": grid.length, "H": grid.size, "W": grid.size, "D_v": encoder.dim}
            known.pop("e_v", None)
            call(slot)
            if slot == model.encoders[-1]:
                call("local_head")
            if slot != model.encoders[0]:
                e_tv = [known.get("e_v", blank(E_V))]
        for slot in ("text_encoder", "global_pooler", "condition_fuser"):
            call(slot)
        names = {"t": "timestep", "c": "encoder_hidden_states", "mask": "encoder_attention_mask"}
        known |= {name: known[symbol] for symbol, name in names.items() if symbol in known}
        call("unet")
        call("backbone")
        call("front_end")
        call("autoencoder", "encode")
        sampler = experiment.sampler
        e_v = known["e_v"] if "e_v" in known else blank(E_V)
        steps = f"{experiment.num_inference_steps} steps of {name_of(experiment.scheduler)}"
        known["z"] = run.attempt(
            "sampler", sampler, steps, lambda: _sampled(model, experiment, e_v, *e_tv), otherwise=None
        )
        if known["z"] is None:
            del known["z"]
        call("autoencoder", "decode")
        call("vocoder")


def _sampled(model: STAV2A, experiment: Experiment, e_v: Tensor, e_tv: Tensor | None = None) -> Tensor:
    """Latents after the first steps of the sampler, whose engine is tried by itself."""
    entry = entry_of(experiment.sampler)
    plain = {"engine": Eager} if entry and "engine" in entry.settable else {}
    return experiment.sampler(**plain)(
        model,
        e_v,
        ["a sound"] * len(e_v),
        scheduler=experiment.noise_scheduler(),
        num_inference_steps=experiment.num_inference_steps,
        guidance_scale=experiment.guidance_scale,
        guider=experiment.guider(),
        e_tv=e_tv,
        seeds=range(len(e_v)),
        progress=lambda timesteps: itertools.islice(timesteps, STEPS),
    )


def _compute_losses(run: DryRun, model: STAV2A, experiment: Experiment, folder: Path) -> None:
    """Compute one loss of every stage in order, and of the classifier."""
    corpus, trainer = BlankCorpus(model), OneLoss()
    planned = [
        (factory, PlannedStage(name_of(factory), _one_step(factory), ""))
        for factory in experiment.stages
        if not factory().idle
    ]

    def work(frozen: frozenset[str]) -> TrainingContext:
        seed, objective = experiment.seed, experiment.objective()
        return TrainingContext(model, corpus, folder, seed, objective, frozen, lambda *loss: None, trainer)

    batch = "a batch of clips"
    frozen_blocks = frozen_before([each for _, each in planned], model)
    for (factory, each), frozen in zip(planned, frozen_blocks, strict=True):
        model.merge_adapters(changed_by(each.stage))
        if frozen.issuperset(each.stage.trains):
            blocks = " and ".join(each.stage.trains)
            why = f"{blocks} came with weights, or an earlier stage has finished with it"
            run.remarks.append(f"{selector_of('stage', factory)} trains nothing: {why}")
        run.attempt("stage", factory, batch, lambda: each.stage.run(work(frozen)), otherwise={})  # noqa: B023
    if experiment.classifier is not None:
        classifier = experiment.classifier(classes=2).to(_device(model))
        run.attempt(
            "classifier",
            experiment.classifier,
            batch,
            lambda: classifier.fit(work(frozenset())),
            otherwise={},
        )


def _one_step(factory: Callable[..., Any]) -> Any:
    """A stage of one step, as one with a loop of its own would take all of them."""
    entry = entry_of(factory)
    lengths = {"steps": 1, "epochs": None}
    return factory(**{name: value for name, value in lengths.items() if entry and name in entry.settable})


def _try_machine(experiment: Experiment) -> None:
    """Try every engine and optimizer of the recipe with a few numbers on this machine's device.

    Raises:
        UsageError: One does not run here.
    """
    for owner, parameter, factory, entry in _nested(experiment):
        if entry.slot not in TRIALS:
            continue
        try:
            TRIALS[entry.slot](factory)
        except StaV2AError:
            raise
        except Exception as error:
            default = entry_of(owner.settable[parameter].default)
            others = [each.selector for each in registry.available(entry.slot) if each != entry]
            advice = f"Bind {owner.selector}.{parameter} = @{default.selector if default else others[0]}."
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(
                f"{entry.selector} does not run on this machine: {reason}.", advice=advice
            ) from error


def _nested(experiment: Experiment) -> Iterator[tuple[Entry, str, Callable[..., Any], Entry]]:
    """Every component that another one is given: its owner, the owner's parameter, its factory, its entry."""
    root = describing.root_entry(type(experiment))
    values = {name: getattr(experiment, name) for name in root.settable}
    for owner in describing.reach(Configured(root, values)).values():
        for parameter, value in owner.values.items():
            for leaf in leaves(value):
                if (entry := entry_of(leaf)) is not None:
                    yield owner.entry, parameter, leaf, entry


def _try_engine(factory: Callable[..., Any]) -> None:
    x = torch.zeros(8, device=distributed.device())

    def step() -> None:
        x.add_(1)

    factory()(step)()


def _try_optimizer(factory: Callable[..., Any]) -> None:
    parameter = nn.Parameter(torch.zeros(8, device=distributed.device()))
    parameter.grad = torch.ones_like(parameter)
    factory([{"params": [parameter], "lr": 1e-3}]).step()


TRIALS: dict[str, Callable[[Callable[..., Any]], None]] = {"engine": _try_engine, "optimizer": _try_optimizer}


def _measure(run: DryRun, experiment: Experiment) -> None:
    """Let every metric measure a few clips of noise."""
    rate = experiment.front_end().sample_rate
    rng, samples = np.random.default_rng(0), round(SECONDS * rate)
    sounds = 0.1 * rng.standard_normal((2, MEASURED, samples)).astype(np.float32)
    logits, embeddings = rng.standard_normal((2, MEASURED, 2)), rng.standard_normal((2, MEASURED, 4))
    outputs = ClassifierOutputs(
        name="a classifier",
        generated_logits=logits[0],
        reference_logits=logits[1],
        generated_embeddings=embeddings[0],
        reference_embeddings=embeddings[1],
    )
    noise = EvaluationSet(
        ids=[str(i) for i in range(MEASURED)],
        sounds=ArraySounds(generated=list(sounds[0]), references=list(sounds[1]), sample_rate=rate),
        flows=list(rng.random((MEASURED, 25))),
        frame_rate_hz=[25.0] * MEASURED,
        true_onsets_s=[np.array([SECONDS / 2])] * MEASURED,
        labels=np.arange(MEASURED) % 2,
        vague=np.ones(MEASURED, bool),
        captions=["a sound"] * MEASURED,
        classifier=outputs if experiment.classifier else None,
    )

    def measured(factory: Callable[..., Any]) -> Callable[[EvaluationSet], Score]:
        def metric(samples: EvaluationSet) -> Score:
            given = f"{MEASURED} clips of noise"
            score = run.attempt("metric", factory, given, lambda: factory()(samples), otherwise=None)
            if not isinstance(score, Score):
                raise MetricError(
                    f"{selector_of('metric', factory)} gave {type(score).__name__}.",
                    advice="Make it return a stav2a.metrics.score.Score, as its reporter does.",
                )
            return score

        return metric

    scores = evaluate(noise, [measured(factory) for factory in experiment.metrics])
    mean_of_samplings([scores] * experiment.num_waveforms_per_clip)


def _wrong(slot: str, factory: Any, method: str, found: str, promised: str) -> RegistryError:
    entry = entry_of(factory)
    return RegistryError(
        f"{selector_of(slot, factory)} gives {found} from {method}, but its slot promises {promised}.",
        f'In file "{entry.file}", line {entry.line}.' if entry else None,
        f"`stav2a components {ROLES.get(slot, slot)}` shows what the slot asks for.",
    )


def _size(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)
