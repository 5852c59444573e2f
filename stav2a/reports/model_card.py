"""Model card of an exported run, as the Hugging Face hub shows it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stav2a import __version__
from stav2a.metrics.score import Score
from stav2a.reports.comparison_tables import scores_document
from stav2a.utils.checkpoints import converted_facts

OWN = "trained by this run; its licence is yours to choose"
UNKNOWN = "unknown to us"

HEAD = """\
---
library_name: stav2a
tags:
- video-to-audio
- foley
---
# {name}

Sound for silent video: the model of a run of the recipe `{recipe}`, exported by stav2a {version}.

```python
from stav2a import VideoToAudioPipeline

pipe = VideoToAudioPipeline.from_pretrained("{name}")
sound = pipe("clip.mp4", prompt="").audios[0]  # (S,), {rate_hz} Hz, mono
```

```sh
stav2a generate clip.mp4 --model {name} --output sounds
```
"""


@dataclass(frozen=True)
class BlockOrigin:
    """A block of the model: its component, its size, and where its weights come from.

    Args:
        slot: The slot.
        component: Its component.
        parameters: Number of its parameters.
        source: File that its weights were converted from, or how they came about.
        licence: Licence of the weights, as far as known.
    """

    slot: str
    component: str
    parameters: int
    source: str
    licence: str

    @classmethod
    def of(cls, slot: str, described: Mapping[str, Any], parameters: int) -> "BlockOrigin":
        """Origin of a block, from its described component."""
        folder = described["parameters"].get("checkpoint")
        if not parameters:
            source, licence = "it has no weights", ""
        elif folder is None:
            source, licence = "this run", OWN
        else:
            facts = converted_facts(folder)
            source = ", ".join(file["name"] for file in facts.get("files", [])) if facts else str(folder)
            licence = facts.get("licence", UNKNOWN)
        return cls(slot, described["component"], parameters, source, licence)


def model_card(
    name: str,
    recipe: str,
    *,
    snapshot: str,
    blocks: Sequence[BlockOrigin],
    scores: Sequence[Score],
    data: Mapping[str, Any],
    sample_rate: int,
) -> str:
    """Model card in Markdown: use, scores with intervals, weights with licences, data, and the whole recipe.

    Args:
        name: Name of the model.
        recipe: Name of the recipe.
        snapshot: The recipe in full.
        blocks: Origin of each block.
        scores: Scores of the run's test clips.
        data: Description of the component that the clips came from.
        sample_rate: Sampling rate of the model's sound, in Hz.
    """
    found = scores_document(scores).markdown() if scores else "The run's folder has no scores."
    table = found.replace("## ", "### ")
    clips = f"clips of `{data['component']}`"
    version = f", version {data['version']}" if "version" in data else ""
    measured = f"Of the test {clips}{version}, with the settings of the recipe below."
    limits = (
        f"It was trained on the {clips} alone; other videos were not tested. Sounds can be wrong "
        "in object and in time: docs/metrics.md of stav2a says what the scores mean."
    )
    parts = [
        HEAD.format(name=name, recipe=recipe, version=__version__, rate_hz=sample_rate),
        f"## Scores\n\n{measured}\n\n{table.strip()}\n",
        "## Weights\n\n" + "\n".join(_weights(blocks)) + "\n",
        f"## Limits\n\n{limits}\n",
        f"## Recipe\n\n```gin\n{snapshot.strip()}\n```\n",
    ]
    return "\n".join(parts)


def _weights(blocks: Sequence[BlockOrigin]) -> Iterator[str]:
    yield "| block | component | parameters | weights from | licence |"
    yield "|---|---|---:|---|---|"
    for each in blocks:
        cells = (each.slot, f"`{each.component}`", f"{each.parameters:,}", each.source, each.licence)
        yield f"| {' | '.join(cells)} |"
