"""The root of every recipe, with a component for every slot, and the store keys of its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from stav2a import recipe
from stav2a.data.clip import Clip
from stav2a.data.filters import Decision, filter_key
from stav2a.data.front_ends import AudioLDMMel
from stav2a.models.audit import missing_data
from stav2a.models.stav2a import BLOCKS, PARTS, STAV2A, VIDEO, assemble, own_tensors
from stav2a.recipe import describing
from stav2a.recipe.describing import signature
from stav2a.registry import available, conforming, entry_of, expect, name_of, selector_of
from stav2a.sampling.guiders import ClassifierFree
from stav2a.slots import ROLES
from stav2a.training.corpus import classifiable, kept_rows, rows_of
from stav2a.training.train import PlannedStage, changed_by
from stav2a.utils.checkpoints import converted_facts
from stav2a.utils.contents import Contents
from stav2a.utils.errors import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, UsageError, check_bounds

LONGEST_S = 600.0  # of a clip
MAX_WAVEFORMS = 16  # of a test clip: seeds of 500,000 sounds are apart from those of the next run.seed
RUNNING = ("scheduler", "guider", "sampler", "trainer", "classifier")
DENOISER = {"unet", "backbone"}
SAMPLING = (
    "sampler", "scheduler", "guider", "objective", "num_inference_steps", "guidance_scale", "seed",
)  # fmt: skip
STORE_FORMAT = "2"  # raise it when the same settings give another result; one component's: its own `version`


@recipe.as_root("run")
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One variant of STA-V2A: its blocks, its data, its training and its evaluation.

    Args:
        feature_encoder: Video frames -> e_v.
        text_encoder: Captions -> e_text.
        local_head: e_v -> e_lv, the temporal condition.
        global_pooler: e_v -> e_gv, the semantic condition.
        condition_fuser: e_text and e_gv -> the tokens of cross-attention.
        unet: The text-to-audio denoiser.
        backbone: The denoiser with all its conditions.
        autoencoder: Mel <-> latent.
        vocoder: Mel -> waveform.
        dataset: The clips.
        onset_detector: Source of the pseudo-labels of the onset pretext task.
        objective: Target of the denoiser: eps as in eq. 6, v, or a flow.
        scheduler: Noise levels and steps of sampling.
        sampler: The denoising loop.
        stages: Training stages, in order.
        trainer: Training loop of all stages.
        classifier: Classifier for FD, KL, IS and class accuracy; None where clips have no class.
        metrics: Metrics of the test split.
        duration_s: Seconds of one clip.
        audio_peak: Peak that a sound, without its mean, is scaled to before its mel, as AudioLDM's family was
            trained on; None takes sounds as they are. Filters, onset labels and metrics always do.
        num_inference_steps: Denoising steps of a sample.
        guidance_scale: Weight w of the text in eq. 7.
        guider: Combination of the branches of guidance; eq. 7.
        temporal_encoder: Video frames -> the features that the local head takes, by another feature encoder;
            None is the feature encoder.
        front_end: Waveform -> mel, and the rate of all sound: AudioLDM's.
        num_waveforms_per_clip: Sounds of each test clip, each from noise of its own. A score is the mean over
            them, and so depends less on the noise.
        seed: Seed of every random choice.
    """

    version: ClassVar[str] = STORE_FORMAT
    # left out of signatures where they have their defaults
    later: ClassVar[tuple[str, ...]] = ("front_end", "temporal_encoder", "num_waveforms_per_clip")
    retired: ClassVar[dict[str, str]] = {
        "prediction_type": "Bind run.objective = @objective.epsilon or @objective.v_prediction in its place."
    }

    feature_encoder: Callable[..., Any]
    text_encoder: Callable[..., Any]
    local_head: Callable[..., Any]
    global_pooler: Callable[..., Any]
    condition_fuser: Callable[..., Any]
    unet: Callable[..., Any]
    backbone: Callable[..., Any]
    autoencoder: Callable[..., Any]
    vocoder: Callable[..., Any]
    dataset: Callable[..., Any]
    onset_detector: Callable[..., Any]
    objective: Callable[..., Any]
    scheduler: Callable[..., Any]
    sampler: Callable[..., Any]
    stages: Sequence[Callable[..., Any]]
    trainer: Callable[..., Any]
    classifier: Callable[..., Any] | None
    metrics: Sequence[Callable[..., Any]]
    duration_s: float = 10.24
    audio_peak: float | None = None
    num_inference_steps: int = 200
    guidance_scale: float = 3.0
    guider: Callable[..., Any] = ClassifierFree
    temporal_encoder: Callable[..., Any] | None = None
    front_end: Callable[..., Any] = AudioLDMMel
    num_waveforms_per_clip: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MAX_STEPS:
            expected = f"1 to {MAX_STEPS}, one fewer than the noise levels that the model is trained on"
            raise UsageError(f"run.num_inference_steps = {self.num_inference_steps}: expected {expected}.")
        check_bounds("run.seed", self.seed, 0, MAX_SEED)
        check_bounds("run.num_waveforms_per_clip", self.num_waveforms_per_clip, 1, MAX_WAVEFORMS)
        check_bounds("run.guidance_scale", self.guidance_scale, 0, MAX_GUIDANCE)
        if not 0 < self.duration_s <= LONGEST_S:
            expected = f"expected more than 0 seconds, and at most {LONGEST_S:g}"
            raise UsageError(f"run.duration_s = {self.duration_s}: {expected}.")
        if self.audio_peak is not None and not 0 < self.audio_peak <= 1:
            raise UsageError(f"run.audio_peak = {self.audio_peak}: expected above 0, at most 1, or None.")
        for slot in (*PARTS, *ROLES, "dataset", "onset_detector", "objective", *RUNNING):
            if getattr(self, slot) is not None:
                expect(slot, getattr(self, slot))
        for slot, factories in (("stage", self.stages), ("metric", self.metrics)):
            for factory in factories:
                expect(slot, factory)
        entry = entry_of(self.temporal_encoder)
        if entry is not None and entry == entry_of(self.feature_encoder):
            raise UsageError(
                f"run.temporal_encoder and run.feature_encoder are both {entry.selector}, "
                "which has one set of parameters.",
                advice="Leave run.temporal_encoder out: the local head then takes the feature encoder's "
                "features.",
            )

    def blocks(self) -> dict[str, Callable[..., Any]]:
        """The factories of the model's blocks, by slot or role."""
        found = {slot: getattr(self, slot) for slot in (*BLOCKS, *ROLES)}
        return {slot: factory for slot, factory in found.items() if factory is not None}

    def model(self) -> STAV2A:
        """The assembled model, its random weights drawn from the seed.

        Raises:
            UsageError: Its weights predict or read something else than the recipe says.
        """
        self.check_denoiser()
        torch.manual_seed(self.seed)
        return assemble({**self.blocks(), "front_end": self.front_end}, duration_s=self.duration_s)

    def noise_scheduler(self) -> Any:
        """The scheduler of sampling, for what the denoiser predicts.

        Raises:
            UsageError: It takes other predictions.
        """
        return self.scheduler(prediction_type=self.objective().prediction_type)

    def data_filters(self, contents: Contents | None = None) -> dict[str, Callable[..., Any]]:
        """Every distinct data filter of a stage with steps or of the classifier, by its key."""
        return {filter_key(each.data_filter, contents): each.data_filter for each, _ in self._learners()}

    def _learners(self) -> list[tuple[Any, tuple[str, ...]]]:
        """The stages with steps, and the classifier, each with the splits that it needs clips of."""
        learners: list[tuple[Any, tuple[str, ...]]] = [
            (each, ("train", "validation") if hasattr(each, "held_out") else ("train",))
            for each in self._stages()
        ]
        if self.classifier is not None:
            learners.append((self.classifier(classes=1), ("train", "validation")))
        return learners

    def check_clips(
        self,
        clips: Sequence[Clip],
        decisions: Mapping[str, Sequence[Decision]] | None = None,
        contents: Contents | None = None,
    ) -> None:
        """Refuse clips among which there is none to measure on, or none that a learner can learn from.

        Args:
            clips: The clips of a run.
            decisions: Decisions of every data filter, by its key; None where they are not made yet.
            contents: Hashes of files, as the keys have them.

        Raises:
            UsageError: The split, or the filter that keeps none of it.
        """
        rows_of(clips, "test")
        for each, splits in self._learners():
            for split in splits:
                if decisions is None:
                    rows_of(clips, split)
                else:
                    found = decisions[filter_key(each.data_filter, contents)]
                    kept_rows(clips, found, split, name_of(each.data_filter))

    def check_denoiser(self) -> None:
        """Compare what converted weights of U-Net and backbone predict and read with the recipe.

        Raises:
            UsageError: They differ.
        """
        ours = {
            "predicts": self.objective().prediction_type,
            "reads": self.described("text_encoder")["component"],
        }
        bound = {"predicts": "run.objective = @objective.{}", "reads": "run.text_encoder = @{}"}
        for slot in ("unet", "backbone"):
            described = self.described(slot)
            folder = described["parameters"].get("checkpoint")
            facts = {name: value for name, value in converted_facts(folder).items() if name in ours}
            if differing := [name for name, value in facts.items() if value != ours[name]]:
                here = " and ".join(bound[name].format(ours[name]) for name in differing)
                known = {entry.selector for entry in available("text_encoder")}
                known |= {entry.name for entry in available("objective")}
                advice = (
                    f"Bind {' and '.join(bound[name].format(facts[name]) for name in differing)}, or give"
                )
                if any(facts[name] not in known for name in differing):
                    advice = "No text encoder has what it reads: give"
                raise UsageError(
                    f"{described['component']}.checkpoint = {folder!r} "
                    f"{' and '.join(f'{name} {facts[name]}' for name in differing)}; the recipe has {here}.",
                    advice=f"{advice} weights that fit the recipe.",
                )

    def random_blocks(self, model: STAV2A | None = None) -> list[str]:
        """Lines on blocks that keep random weights: none are given for them, and no stage trains them.

        Args:
            model: The model as it is assembled; without it only blocks that could be given weights are known.
        """
        trained: set[str] = set()
        for stage in self._stages():
            adapted = stage.adapter().blocks if hasattr(stage, "adapter") else ()
            frozen = {"unet"} if self.described("backbone")["parameters"].get("freeze_unet") else set()
            trained |= changed_by(stage) - (frozen - set(stage.trains)) - set(adapted)
        lines = []
        for slot in self._read() - trained:
            described = self.described(slot)
            component, parameters = described["component"], described["parameters"]
            if "checkpoint" in parameters:
                reason = f"{component}.checkpoint is None" if parameters["checkpoint"] is None else ""
            elif model is not None and any(
                p.requires_grad for p in own_tensors(slot, model.block(slot).named_parameters())
            ):
                reason = f"{component} takes no checkpoint"
            else:
                reason = ""
            if reason:
                lines.append(f"run.{slot} keeps random weights: {reason}, and no stage trains them")
        return sorted(lines)

    def without_effect(self) -> list[str]:
        """Lines on settings that change nothing beside the others, or not what they are for."""
        lines = []
        if self.temporal_encoder is not None and "temporal_encoder" not in self._read():
            lines.append("run.temporal_encoder has no effect: nothing reads local features")
        dropouts = [
            (selector_of("stage", type(stage)), stage.video_dropout)
            for stage in self._stages()
            if hasattr(stage, "video_dropout")
        ]
        if name_of(self.guider) == "two_weights" and dropouts and not any(given for _, given in dropouts):
            lines += [
                "guider.two_weights compares with the model without the video, which it never learns: "
                f"{stage}.video_dropout = 0, expected more, such as 0.1"
                for stage, _ in dropouts
            ]
        return lines

    def _stages(self) -> list[Any]:
        """The stages with steps."""
        return [stage for factory in self.stages if not (stage := factory()).idle]

    def _read(self) -> set[str]:
        """The blocks whose output another one reads, or the sampler."""
        local = name_of(self.local_head) != "none" and name_of(self.backbone) != "unet"
        pooled = name_of(self.global_pooler) != "none" or name_of(self.sampler) == "similarity_guided"
        read = {
            "feature_encoder": pooled or (local and self.temporal_encoder is None),
            "temporal_encoder": local,
            "local_head": local,
            "text_encoder": name_of(self.condition_fuser) != "video_only",
        }
        return {slot for slot in self.blocks() if read.get(slot, True)}

    def with_labels_of(self, clips: Sequence[Clip]) -> tuple["Experiment", list[str]]:
        """The experiment that the labels of some clips allow, and lines on what is left out of it.

        Without two classes to learn there is no classifier, nor the metrics that nothing else can judge.
        """
        known = sum(clip.label is not None for clip in clips)
        if self.classifier is None or known == len(clips):
            return self, []
        count = f"{len(clips) - known} of {len(clips)} clips have no label"
        if classifiable(clips):
            return self, [f"{count}: the classifier learns from the others, and class accuracy needs all"]
        metrics = {factory: factory() for factory in self.metrics}
        kept = [each for each, made in metrics.items() if not getattr(made, "needs_classifier", False)]
        names = ", ".join(name_of(each) for each in self.metrics if each not in kept) or "no metric"
        line = f"{count}: no classifier is trained, and what needs it is left out: {names}"
        return replace(self, classifier=None, metrics=kept), [line]

    def listed_clips(self) -> Sequence[Clip]:
        """The clips, where they can be listed before a run; none where it makes them or no list is there."""
        dataset = self.dataset()
        listed = hasattr(dataset, "identity") and not missing_data(self.described("dataset"))
        return dataset.clips(Path()) if listed else []

    def check(self) -> None:
        """Build all components but the model's blocks, which refuse values that can't be."""
        self.check_denoiser()
        for factory in (self.dataset, self.onset_detector, self.guider, self.sampler, self.trainer):
            factory()
        for factory in self.stages:
            conforming("stage", factory(), factory)
        for factory in self.metrics:
            factory()
        self.noise_scheduler()
        for factory in self.data_filters().values():
            factory()

    def described(self, slot: str) -> Any:
        """A slot's component with all its parameters."""
        return describing.describe(getattr(self, slot))


@dataclass(frozen=True)
class StoreEntry:
    """Entry of the store that a run takes from there, or makes and leaves there; see `Store`."""

    kind: str
    key: str
    name: str = ""
    steps: int | None = 0  # of the optimizer, where something is trained; None where epochs are given
    needs: frozenset[str] = frozenset()  # keys of stages that are trained before

    @property
    def trains(self) -> bool:
        """True where something is trained."""
        return self.steps != 0

    @property
    def title(self) -> str:
        """Name for messages."""
        return self.name or {"clips": "data", "flows": "optical flow"}.get(self.kind, self.kind)


class Keys:
    """Store keys of a recipe's parts: signatures of all that each depends on. No model is built for them.

    Files count by their content: a dataset by its clips' files, weights by their bytes.

    Attributes:
        run: Key of the whole run.
        dataset: The dataset.
        filters: The data filters, by key.
        planned: The stages with steps, each with its key.
        by_kind: Keys of a run's other entries in the store, and of the clips' files under `dataset`.
    """

    def __init__(self, experiment: Experiment, contents: Contents) -> None:
        def signed(value: Any) -> Any:
            return describing.describe(value, contents)

        self.experiment = experiment
        self.dataset = experiment.dataset()
        blocks = {slot: signed(factory) for slot, factory in experiment.blocks().items()}
        encoders = [slot for slot in VIDEO if slot in blocks]
        self.filters = experiment.data_filters(contents)

        dataset, whole = [signed(experiment.dataset)], describing.describe_root(experiment, contents)
        self.run = signature(whole)
        if hasattr(self.dataset, "identity"):  # its parameters do not determine its clips
            dataset = [dataset[0]["component"], self.dataset.identity(contents)]
            self.run = signature([whole, dataset])
        rate_and_size, *more = (
            {name: blocks[slot]["parameters"].get(name) for name in ("frame_rate_hz", "frame_size")}
            for slot in encoders
        )
        wanted = [*dataset, signed(experiment.onset_detector)]
        front_end = whole["parameters"].get("front_end")  # left out where it is the default
        waveforms = whole["parameters"].get("num_waveforms_per_clip")  # this too
        sound = [experiment.duration_s, experiment.audio_peak, STORE_FORMAT, *filter(None, [front_end])]
        clips = signature([wanted, rate_and_size, *sound, *more])

        self.planned: list[PlannedStage] = []
        trainer = signed(experiment.trainer)
        given = {
            "data": clips,
            "seed": experiment.seed,
            "trainer": trainer,
            "format": STORE_FORMAT,
        }
        reads: dict[str, set[str]] = {}  # a stage's key -> the blocks that it reads
        for factory in experiment.stages:
            described, stage = signed(factory), factory()
            if stage.idle:
                continue
            used = {slot: blocks[slot] for slot in (_present(name, blocks) for name in stage.uses)}
            inputs = [each.key for each in self.planned if changed_by(each.stage) & used.keys()]
            changed, touched = changed_by(stage), {*used, *changed_by(stage)}
            needs = {each.key for each in self.planned if changed_by(each.stage) & touched}
            needs |= {key for key, read in reads.items() if read & changed}
            if DENOISER & used.keys():
                used["objective"] = signed(experiment.objective)
            key = signature({"stage": described, "blocks": used, "inputs": inputs, "given": given})
            reads[key] = set(used)
            self.planned.append(PlannedStage(name_of(factory), stage, key, frozenset(needs)))

        def encoded_by(slot: str) -> str:
            """Key of a block's output for all clips; the seed draws the weights that no stage trains."""
            stages = [each.key for each in self.planned if slot in changed_by(each.stage)]
            return signature([blocks[slot], stages, [clips, experiment.seed]])

        files = signature([*dataset, STORE_FORMAT])
        metrics = [signed(metric)["parameters"] for metric in experiment.metrics]
        flows = [parameters["flow"] for parameters in metrics if parameters.get("flow")]
        self.by_kind = {
            "dataset": files,
            "clips": clips,
            **{VIDEO[slot].features: encoded_by(slot) for slot in encoders},
            "latents": encoded_by("autoencoder"),
            "flows": signature([files, "frames at their times", *flows]),  # without one, Farneback's
        }
        self.by_kind["sounds"] = signature(
            {
                "blocks": blocks,
                "stages": [each.key for each in self.planned],
                **{VIDEO[slot].features: self.by_kind[VIDEO[slot].features] for slot in encoders},
                "duration_s": experiment.duration_s,
                "format": STORE_FORMAT,
                **{name: signed(getattr(experiment, name)) for name in SAMPLING},
                **({"num_waveforms_per_clip": waveforms} if waveforms else {}),
            }
        )
        if experiment.classifier:
            self.by_kind["classifier"] = signature([[signed(experiment.classifier), trainer], clips])

    def parts(self) -> list[StoreEntry]:
        """All that a run takes from the store or makes, in order."""
        keys, classifier = self.by_kind, self.experiment.classifier
        steps = [classifier(classes=1).steps] if classifier else []
        return [
            StoreEntry("clips", keys["clips"]),
            *(StoreEntry("filter", keys["clips"] + key) for key in self.filters),
            *(
                StoreEntry("stage", each.key, each.name, each.stage.steps, each.needs)
                for each in self.planned
            ),
            *(
                StoreEntry(each.features, keys[each.features])
                for each in VIDEO.values()
                if each.features in keys
            ),
            StoreEntry("latents", keys["latents"]),
            *(StoreEntry("classifier", keys["classifier"], steps=each) for each in steps),
            StoreEntry("sounds", keys["sounds"], needs=frozenset(each.key for each in self.planned)),
            StoreEntry("flows", keys["flows"]),
        ]


def _present(slot: str, blocks: Mapping[str, Any]) -> str:
    """The block itself, or the one that takes its part where the model does not have it."""
    return slot if slot in blocks else ROLES[slot]
