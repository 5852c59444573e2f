"""The root of every recipe: which component fills which slot, and how a run is carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

from stav2a import recipe
from stav2a.data.prepared.reader import PreparedClips
from stav2a.models.stav2a import BLOCKS, STAV2A, assemble
from stav2a.recipe import describing
from stav2a.registry import expect
from stav2a.training.train import PlannedStage, block_keys, plan_stages
from stav2a.utils.errors import UsageError

MOST_STEPS = 999
STORE_FORMAT = "1"  # raise it when the same settings give another result; one component's: its own `version`


@recipe.as_root("run")
@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One variant of STA-V2A: its blocks, its data, its training and its evaluation.

    Args:
        feature_encoder: Video frames -> e_v.
        text_encoder: Captions -> e_text.
        local_head: e_v -> e_lv, the temporal condition.
        global_pooler: e_v -> e_gv, the semantic condition.
        condition_fuser: Joins e_text and e_gv.
        unet: The text-to-audio denoiser.
        backbone: The denoiser with all its conditions.
        autoencoder: Mel <-> latent.
        vocoder: Mel -> waveform.
        dataset: The clips.
        onset_detector: Gives the pseudo-labels of the onset pretext task.
        scheduler: Steps through the noise levels when sampling.
        sampler: The denoising loop.
        stages: Training stages, in order.
        trainer: How they are trained.
        classifier: The judge of FD, KL, IS and class accuracy; None where clips have no class.
        metrics: What is measured on the test split.
        duration_s: Seconds of one clip.
        prediction_type: What the denoiser predicts: eps as in eq. 6, or v.
        num_inference_steps: Denoising steps of a sample.
        guidance_scale: Weight w of the text in eq. 7.
        seed: Of every random choice.
    """

    version: ClassVar[str] = STORE_FORMAT

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
    scheduler: Callable[..., Any]
    sampler: Callable[..., Any]
    stages: Sequence[Callable[..., Any]]
    trainer: Callable[..., Any]
    classifier: Callable[..., Any] | None
    metrics: Sequence[Callable[..., Any]]
    duration_s: float = 10.24
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    num_inference_steps: int = 200
    guidance_scale: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise UsageError(
                f"run.num_inference_steps = {self.num_inference_steps}: expected 1 to {MOST_STEPS}, "
                "one fewer than the noise levels that the model is trained on."
            )
        if self.duration_s <= 0:
            raise UsageError(f"run.duration_s = {self.duration_s}: expected more than 0 seconds.")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in SINGLE and value is not None:
                expect(each.name, value)
            for factory in value if each.name in LISTS else ():
                expect(LISTS[each.name], factory)

    def model(self) -> STAV2A:
        """The assembled model, its random weights drawn from the seed."""
        import torch

        torch.manual_seed(self.seed)
        return assemble({slot: getattr(self, slot) for slot in BLOCKS}, duration_s=self.duration_s)

    def described(self, slot: str) -> Any:
        """A slot's component with all its parameters."""
        return describing.describe(getattr(self, slot))


SINGLE = (*BLOCKS, "dataset", "onset_detector", "scheduler", "sampler", "trainer", "classifier")
LISTS = {"stages": "stage", "metrics": "metric"}


@dataclass(frozen=True)
class StoreEntry:
    """Entry of the store that a run takes from there, or makes and leaves there.

    Args:
        kind: Kind of the entry: clips, filter, stage, features, latents, classifier, flows.
        key: Signature of all that it depends on.
        name: Name among the entries of its kind, where there are several: the stage's.
        steps: Optimizer steps; 0 where nothing is trained.
    """

    kind: str
    key: str
    name: str = ""
    steps: int = 0

    @property
    def title(self) -> str:
        """Name for messages."""
        return self.name or {"clips": "data", "flows": "optical flow"}.get(self.kind, self.kind)


def filter_key(factory: Any) -> str:
    """The signature of a data filter's description."""
    return describing.signature(describing.describe(factory))


@dataclass(frozen=True)
class Keys:
    """The signatures of one recipe's parts; no model is built to know them.

    Args:
        experiment: What the recipe says.
    """

    experiment: Experiment

    def parts(self) -> list[StoreEntry]:
        """All that a run takes from the store or makes, in order."""
        stages = [StoreEntry("stage", each.key, each.name, each.stage.steps) for each in self.planned]
        encoded = {"features": "feature_encoder", "latents": "autoencoder"}
        return [
            StoreEntry("clips", self.data),
            *(StoreEntry("filter", self.data + key) for key in self.filters),
            *stages,
            *(StoreEntry(kind, self.blocks[block]) for kind, block in encoded.items()),
            *(StoreEntry("classifier", self.classifier, steps=judge.steps) for judge in self._judges),
            StoreEntry("flows", self.flows),
        ]

    @cached_property
    def clips(self) -> Any:
        """The dataset."""
        return self.experiment.dataset()

    @cached_property
    def filters(self) -> dict[str, Any]:
        """Every distinct data filter that a stage or the classifier asks for, by its key."""
        stages = [stage for _, _, stage in self._stages if stage.steps]
        factories = [stage.data_filter for stage in (*stages, *self._judges)]
        return {filter_key(factory): factory() for factory in factories}

    @cached_property
    def planned(self) -> list[PlannedStage]:
        """The stages that have steps."""
        given = {
            "data": self.data,
            "seed": self.experiment.seed,
            "prediction_type": self.experiment.prediction_type,
            "trainer": self._trainer,
            "format": STORE_FORMAT,
        }
        return plan_stages(self._stages, self._blocks, given=given, signature=describing.signature)

    @cached_property
    def blocks(self) -> dict[str, str]:
        """Of what each block makes of the data."""
        given = [self.data, self.experiment.seed]  # the seed draws the weights that no stage trains
        return block_keys(self.planned, self._blocks, given=given, signature=describing.signature)

    @cached_property
    def dataset(self) -> str:
        """Of the clips' files."""
        return describing.signature([*self._described_dataset, STORE_FORMAT])

    @cached_property
    def data(self) -> str:
        """Of the decoded clips, with their pseudo-labels."""
        wanted = [*self._described_dataset, self.experiment.described("onset_detector")]
        encoder = self._blocks["feature_encoder"]["parameters"]
        seen = {name: encoder.get(name) for name in ("frame_rate_hz", "frame_size")}
        return describing.signature([wanted, seen, self.experiment.duration_s, STORE_FORMAT])

    @cached_property
    def flows(self) -> str:
        """Of the optical flow that the metrics ask for; where they leave it open, of the exact one."""
        described = [
            describing.describe(metric)["parameters"].get("flow") for metric in self.experiment.metrics
        ]
        asked = [flow for flow in described if flow]
        return describing.signature([self.dataset, *asked]) if asked else self.dataset

    @cached_property
    def classifier(self) -> str:
        """Of the trained judge of sounds."""
        return describing.signature([[self.experiment.described("classifier"), self._trainer], self.data])

    @cached_property
    def _stages(self) -> list[tuple[str, Any, Any]]:
        """Name, description and instance of every stage of the model."""
        described = [describing.describe(factory) for factory in self.experiment.stages]
        names = [each["component"].split(".")[1] for each in described]
        made = [factory() for factory in self.experiment.stages]
        return list(zip(names, described, made, strict=True))

    @cached_property
    def _judges(self) -> list[Any]:
        """The classifier, untrained; none where the recipe has none."""
        return [self.experiment.classifier(classes=1)] if self.experiment.classifier else []

    @cached_property
    def _blocks(self) -> dict[str, Any]:
        return {slot: self.experiment.described(slot) for slot in BLOCKS}

    @cached_property
    def _trainer(self) -> Any:
        return self.experiment.described("trainer")

    @cached_property
    def _described_dataset(self) -> list[Any]:
        """With what is in a prepared folder, whose name does not say it."""
        described = [self.experiment.described("dataset")]
        prepared = isinstance(self.clips, PreparedClips)
        return [*described, self.clips.identity()] if prepared else described
