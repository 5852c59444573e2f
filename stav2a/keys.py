"""What a run takes from the store or makes, each part under the signature of all that it depends on."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stav2a import recipe
from stav2a.assembly import BLOCKS
from stav2a.data.cache.dataset import PreparedClips
from stav2a.experiment import STORE_FORMAT, Experiment
from stav2a.training.plan import Planned, block_keys, plan_stages


@dataclass(frozen=True)
class Part:
    """Something that a run takes from the store, or makes and leaves there.

    Args:
        kind: What the store calls it: clips, filter, stage, features, latents, classifier, flows.
        name: What people call it.
        key: The signature of all that it depends on.
        steps: Optimizer steps; 0 where nothing is trained.
    """

    kind: str
    name: str
    key: str
    steps: int = 0


def filter_key(factory: Any) -> str:
    """The signature of a data filter's description."""
    return recipe.signature(recipe.describe(factory))


@dataclass(frozen=True)
class Keys:
    """The signatures of one recipe's parts; no model is built to know them.

    Args:
        experiment: What the recipe says.
    """

    experiment: Experiment

    def parts(self) -> list[Part]:
        """All that a run takes from the store or makes, in order."""
        stages = [Part("stage", each.name, each.key, each.stage.steps) for each in self.planned]
        encoded = {"features": "feature_encoder", "latents": "autoencoder"}
        return [
            Part("clips", "data", self.data),
            *(Part("filter", "filter", self.data + key) for key in self.filters),
            *stages,
            *(Part(kind, kind, self.blocks[block]) for kind, block in encoded.items()),
            *(Part("classifier", "classifier", self.classifier, judge.steps) for judge in self._judges),
            Part("flows", "optical flow", self.flows),
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
    def planned(self) -> list[Planned]:
        """The stages that have steps."""
        given = {
            "data": self.data,
            "seed": self.experiment.seed,
            "prediction_type": self.experiment.prediction_type,
            "trainer": self._trainer,
            "format": STORE_FORMAT,
        }
        return plan_stages(self._stages, self._blocks, given=given, signature=recipe.signature)

    @cached_property
    def blocks(self) -> dict[str, str]:
        """Of what each block makes of the data."""
        given = [self.data, self.experiment.seed]  # the seed draws the weights that no stage trains
        return block_keys(self.planned, self._blocks, given=given, signature=recipe.signature)

    @cached_property
    def dataset(self) -> str:
        """Of the clips' files."""
        return recipe.signature([*self._described_dataset, STORE_FORMAT])

    @cached_property
    def data(self) -> str:
        """Of the decoded clips, with their pseudo-labels."""
        wanted = [*self._described_dataset, self.experiment.described("onset_detector")]
        encoder = self._blocks["feature_encoder"]["parameters"]
        seen = {name: encoder.get(name) for name in ("frame_rate_hz", "frame_size")}
        return recipe.signature([wanted, seen, self.experiment.duration_s, STORE_FORMAT])

    @cached_property
    def flows(self) -> str:
        """Of the optical flow that the metrics ask for; where they leave it open, of the exact one."""
        described = [recipe.describe(metric)["parameters"].get("flow") for metric in self.experiment.metrics]
        asked = [flow for flow in described if flow]
        return recipe.signature([self.dataset, *asked]) if asked else self.dataset

    @cached_property
    def classifier(self) -> str:
        """Of the trained judge of sounds."""
        return recipe.signature([[self.experiment.described("classifier"), self._trainer], self.data])

    @cached_property
    def _stages(self) -> list[tuple[str, Any, Any]]:
        """Name, description and instance of every stage of the model."""
        described = [recipe.describe(factory) for factory in self.experiment.stages]
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
