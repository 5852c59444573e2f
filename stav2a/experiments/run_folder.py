"""A run's folder: what is in it, and how to tell whose it is."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from stav2a import recipe
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import STAV2A
from stav2a.utils.errors import USAGE, StaV2AError
from stav2a.utils.files import write_json, write_text
from stav2a.utils.store import load_tensors

FORMAT = 1


class RunFolderError(StaV2AError):
    """A folder that is not a run's, or is another's."""

    exit_code = USAGE


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def snapshot(self) -> Path:
        return self.path / "snapshot.gin"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def losses(self) -> Path:
        return self.path / "losses.json"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def begun(self) -> bool:
        """Whether there is a run in the folder."""
        return (self.path / "run.json").is_file()

    @property
    def finished(self) -> bool:
        """Whether its run came to its end."""
        return self.begun and bool(self.check().get("finished"))

    def facts(self) -> dict[str, Any]:
        """What `begin` wrote, and what was added since."""
        return json.loads((self.path / "run.json").read_text())

    def begin(self, *, signature: str, snapshot: str, facts: dict[str, Any]) -> None:
        """Make the folder, or go on in it.

        Raises:
            RunFolderError: It holds a run of another configuration.
            OSError: It can't be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.begun:
            found = self.check()
            if found["signature"] != signature:
                raise RunFolderError(
                    f"{self.path} holds a run of another configuration "
                    f"({found['signature'][:8]}, this one is {signature[:8]}). Choose another --output."
                )
            facts = {**found, **facts}
        write_text(self.snapshot, snapshot)
        write_json(self.path / "run.json", {**facts, "signature": signature, "format": FORMAT})

    def add(self, **facts: Any) -> None:
        """Write down something more."""
        write_json(self.path / "run.json", {**self.facts(), **facts})

    def tracked(self, place: str) -> dict[str, Any]:
        """What is known of it in a tracking store: its `run`, `where` to look, whether it is `whole`."""
        return self.facts().get("tracking", {}).get(place, {}) if self.begun else {}

    def add_tracked(self, place: str, **known: Any) -> None:
        """Write down more of it."""
        places = self.facts().get("tracking", {})
        self.add(tracking={**places, place: {**places.get(place, {}), **known}})

    def check(self) -> dict[str, Any]:
        """The run's facts.

        Raises:
            RunFolderError: There is no run in the folder, or one of another version.
        """
        try:
            facts = self.facts()
        except (OSError, ValueError):
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no readable run.json. "
                "Give the folder that `stav2a run` printed, such as runs/cn_onset_gvf-1a2b3c4d."
            ) from None
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            found = facts.get("format") if isinstance(facts, dict) else None
            raise RunFolderError(
                f"{self.path} was written in format {found}, this version reads {FORMAT}. "
                "Run its recipe again: python -m stav2a.run --gin " + str(self.path / "snapshot.gin")
            )
        return facts


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run leaves.

    Args:
        experiment: Its recipe.
        model: With its weights, in evaluation mode.
    """

    experiment: Experiment
    model: STAV2A


def load(run: Path, *, trust: bool = False) -> FinishedRun:
    """The model of a run folder.

    Args:
        run: The folder.
        trust: Let its recipe import any module.

    Raises:
        RunFolderError: It holds no finished run that this version can use.
        RecipeError: A component of its recipe is not installed here.
    """
    folder = RunFolder(run)
    facts = folder.check()
    for file in (folder.snapshot, folder.weights):
        if not file.is_file():
            raise RunFolderError(
                f"{run} holds no finished run: {file.name} is missing. "
                "Give the `stav2a run` command that began it again; it goes on where it stopped."
            )
    loaded = recipe.load([folder.snapshot.resolve()], trust=trust, root=Experiment)
    if loaded.signature() != facts.get("signature"):
        logger.warning(
            "warning: %s was edited, or made by another version of its components: "
            "the sound may differ from the run's own.",
            folder.snapshot,
        )
    experiment = loaded.build()
    model = experiment.model()
    try:
        model.load_state_dict(load_tensors(folder.weights))
    except (SafetensorError, RuntimeError):
        raise RunFolderError(
            f"{folder.weights} does not fit {folder.snapshot.name} beside it: it is damaged, or from another "
            f"run or version. Run the recipe again: python -m stav2a.run --gin {folder.snapshot}"
        ) from None
    return FinishedRun(experiment, model.eval())
