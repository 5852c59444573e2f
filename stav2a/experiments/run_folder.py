"""Folder of a run: its files, its facts, and the finished model."""

import json
import logging
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

logger = logging.getLogger(__name__)


class RunFolderError(StaV2AError):
    """A folder that holds no run, or another one."""

    exit_code = USAGE


class RunFolder:
    """The files of one run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts_file = path / "run.json"
        self.snapshot = path / "snapshot.gin"
        self.weights = path / "model.safetensors"
        self.scores = path / "scores.json"
        self.losses = path / "losses.json"
        self.report = path / "report.html"
        self.samples = path / "samples"

    @classmethod
    def of(cls, output: Path, loaded: recipe.Recipe[Experiment]) -> "RunFolder":
        """Folder of a recipe's run, there or not."""
        return cls(output / f"{loaded.named[0].stem}-{loaded.signature()[:8]}")

    @property
    def begun(self) -> bool:
        """True where the folder holds a run."""
        return self.facts_file.is_file()

    @property
    def finished(self) -> bool:
        """True where its run is complete."""
        return self.begun and bool(self.facts().get("finished"))

    def facts(self) -> dict[str, Any]:
        """Facts of the run: what `begin` wrote, and what was added since.

        Raises:
            RunFolderError: There is no run in the folder, or one of another version.
        """
        try:
            facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no readable run.json.",
                advice="Give the folder that `stav2a run` printed, such as runs/cn_onset_gvf-1a2b3c4d.",
            ) from None
        found = facts.get("format") if isinstance(facts, dict) else None
        if found != FORMAT:
            raise RunFolderError(
                f"{self.path} was written in format {found}, this version reads {FORMAT}.",
                advice=f"Run its recipe again: python -m stav2a.run --gin {self.snapshot}",
            )
        return facts

    def begin(self, *, signature: str, snapshot: str, facts: dict[str, Any]) -> None:
        """Make the folder, or continue in it.

        Raises:
            RunFolderError: It holds a run of another configuration.
            OSError: It can't be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.begun:
            found = self.facts()
            if found["signature"] != signature:
                raise RunFolderError(
                    f"{self.path} holds a run of another configuration "
                    f"({found['signature'][:8]}, this one is {signature[:8]}).",
                    advice="Choose another --output.",
                )
            facts = {**found, **facts}
        write_text(self.snapshot, snapshot)
        write_json(self.facts_file, {**facts, "signature": signature, "format": FORMAT})

    def add(self, **facts: Any) -> None:
        """Add facts."""
        write_json(self.facts_file, {**self.facts(), **facts})

    def tracked(self, place: str) -> dict[str, Any]:
        """Facts of its run in a tracking store: the identifier `run`, `where` it is shown, `whole`."""
        return self.facts().get("tracking", {}).get(place, {}) if self.begun else {}

    def add_tracked(self, place: str, **facts: Any) -> None:
        """Add facts of its run in a tracking store."""
        places = self.facts().get("tracking", {})
        self.add(tracking={**places, place: {**places.get(place, {}), **facts}})


def load(run: Path, *, trust: bool = False) -> tuple[Experiment, STAV2A]:
    """Load the recipe and the trained model, in evaluation mode, of a run folder.

    Args:
        run: The folder.
        trust: Let its recipe import any module.

    Raises:
        RunFolderError: It holds no finished run that this version can use.
        RecipeError: A component of its recipe is not installed here.
    """
    folder = RunFolder(run)
    facts = folder.facts()
    for file in (folder.snapshot, folder.weights):
        if not file.is_file():
            raise RunFolderError(
                f"{run} holds no finished run: {file.name} is missing.",
                advice="Give the `stav2a run` command that began it again; it continues where it stopped.",
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
            "run or version.",
            advice=f"Run the recipe again: python -m stav2a.run --gin {folder.snapshot}",
        ) from None
    return experiment, model.eval()
