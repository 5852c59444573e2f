"""Folder of a run: its files, its facts, and the finished model."""

import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from stav2a import recipe
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import STAV2A
from stav2a.training.train import attach_adapter, changed_by
from stav2a.utils.contents import damage, files_in, hashes_of
from stav2a.utils.errors import USAGE, StaV2AError
from stav2a.utils.files import write_json, write_text
from stav2a.utils.program import command

FORMAT = 1
KINDS: dict[str, Any] = {  # of facts that are read
    "signature": str, "seconds": (int, float), "files": dict, "tracking": dict, "stage_seconds": dict,
    "parameters": dict, "costs": dict, "modules": dict, "recipe": str, "environment": dict, "git": dict,
}  # fmt: skip
NEEDED = {"signature", "seconds", "recipe", "environment", "git"}  # facts of every finished run

logger = logging.getLogger(__name__)


class RunFolderError(StaV2AError):
    """A folder that holds no run, or another one."""

    exit_code = USAGE


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts_file = path / "run.json"
        self.snapshot = path / "snapshot.gin"
        self.weights = path / "model.safetensors"
        self.scores = path / "scores.json"
        self.losses = path / "losses.json"
        self.report = path / "report.html"
        self.samples = path / "samples"
        self.sounds = path / "sounds"

    @classmethod
    def of(cls, output: Path, recipe_name: str, signature: str) -> "RunFolder":
        """Folder of a recipe's run, there or not, by the run's signature."""
        return cls(output / f"{recipe_name}-{signature[:8]}")

    @property
    def begun(self) -> bool:
        """True where the folder holds a run, whose facts can be read."""
        facts = self._read()
        return facts is not None and facts["format"] == FORMAT

    @property
    def finished(self) -> bool:
        """True where its run is complete. Its files are not read; `whole` does that."""
        return self.begun and bool(self.facts().get("finished"))

    def whole(self) -> bool:
        """True where its run is complete and all its files are what was written; else a warning names one."""
        if self.path.is_dir() and not self.begun:
            fault = "damaged, or of another version" if self.facts_file.exists() else "missing"
            logger.warning("%s is %s: the run is made again.", self.facts_file, fault)
        if not self.finished:
            return False
        fault = damage(self.path, self.facts().get("files", {}))  # an older version kept none
        if fault:
            logger.warning("%s: %s: the run is made again.", self.path, fault)
        return not fault

    def make_room(self) -> None:
        """Remove folders where the run's files belong, and files where its folders do."""
        for file in (self.weights, self.scores, self.losses, self.report):
            if file.is_dir():
                shutil.rmtree(file)
        for folder in (self.samples, self.sounds):
            if folder.is_file():
                folder.unlink()

    def finish(self) -> None:
        """Add that the run is complete, and the hashes of its files."""
        files = [self.weights, self.scores, self.losses, self.report, self.snapshot]
        files += [*self.samples.iterdir(), *files_in(self.sounds)]
        self.add(finished=True, files=hashes_of(self.path, files))

    def facts(self) -> dict[str, Any]:
        """Facts of the run: what `begin` wrote, and what was added since.

        Raises:
            RunFolderError: There is no run in the folder, or one of another version.
        """
        facts = self._read()
        if facts is None:
            message = f"{self.path} is not a run folder: it has no readable run.json."
            advice = "Give the folder that `stav2a run` printed, such as runs/cn_onset_gvf-1a2b3c4d."
            raise RunFolderError(message, advice=advice)
        found = facts["format"]
        if found != FORMAT:
            message = f"{self.path} was written in format {found}, this version reads {FORMAT}."
            advice = f"Run its recipe again: {self._again()}"
            raise RunFolderError(message, advice=advice)
        return facts

    def _again(self) -> str:
        return command("run", "--gin", self.snapshot, "--output", self.path.parent, *self.trust)

    @property
    def trust(self) -> list[str]:
        """Option for commands on a run whose recipe imports modules of its user's."""
        facts = self._read() or {}
        return ["--trust-recipe"] if facts.get("modules") else []

    def _read(self) -> dict[str, Any] | None:
        try:
            facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(facts, dict) or "format" not in facts:
            return None
        needed = NEEDED if facts.get("finished") else {"signature"}
        right = all(isinstance(facts[name], kind) for name, kind in KINDS.items() if name in facts)
        right = right and all(
            isinstance(each, dict) and (not each.get("whole") or {"run", "where"} <= each.keys())
            for each in facts.get("tracking", {}).values()
        )
        return facts if facts["format"] != FORMAT or (right and needed <= facts.keys()) else None

    def begin(self, *, signature: str, snapshot: str, facts: dict[str, Any]) -> None:
        """Make the folder, or continue in it.

        Args:
            signature: Signature of the run: its configuration, and the files that it names.
            snapshot: The recipe in full.
            facts: Further facts.

        Raises:
            RunFolderError: It holds a run of another configuration.
            OSError: It can't be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.begun:
            found = self.facts()
            if found["signature"] != signature:
                other = f"another configuration ({found['signature'][:8]}, this one is {signature[:8]})"
                raise RunFolderError(
                    f"{self.path} holds a run of {other}.", advice="Choose another --output."
                )
            kept = {name: value for name, value in found.items() if name not in ("finished", "files")}
            facts = {**kept, **facts}
        write_text(self.snapshot, snapshot)
        write_json(self.facts_file, {**facts, "signature": signature, "format": FORMAT})

    def add(self, **facts: Any) -> None:
        """Add facts."""
        write_json(self.facts_file, {**self.facts(), **facts})

    def span(self) -> tuple[float, float]:
        """Begin and end of the finished run, in seconds since 1970; an older version kept only how long."""
        facts = self.facts()
        began_s = facts.get("began_s", time.time() - facts["seconds"])
        return began_s, began_s + facts["seconds"]

    def costs(self) -> dict[str, float]:
        """Seconds, parameters and operations by name, for tracking: of the whole, of stages, of blocks.

        `parameters.trained` are those that the last stage trains; `flops_per_step` are the operations of a
        denoising step of one clip, with all branches of guidance.
        """
        facts = self.facts()
        stages, blocks = facts.get("stage_seconds", {}), facts.get("parameters", {})
        return {
            "seconds": facts["seconds"],
            **{f"seconds.{name}": seconds for name, seconds in stages.items()},
            **({"seconds_of_training": sum(stages.values())} if stages else {}),
            **({"parameters": sum(blocks.values())} if blocks else {}),
            **{f"parameters.{name}": count for name, count in blocks.items() if count},
            **facts.get("costs", {}),
        }

    def tracked(self, place: str) -> dict[str, Any]:
        """Facts of its run in a tracking store: the identifier `run`, `where` it is shown, `whole`."""
        return self.facts().get("tracking", {}).get(place, {}) if self.begun else {}

    def add_tracked(self, place: str, **facts: Any) -> None:
        """Add facts of its run in a tracking store."""
        places = self.facts().get("tracking", {})
        self.add(tracking={**places, place: {**places.get(place, {}), **facts}})


def load(run: Path, *, trust: bool = False) -> tuple[Experiment, STAV2A]:
    """Load the recipe and the trained model, in evaluation mode, of a run folder.

    With `trust` its recipe may import any module.

    Raises:
        RunFolderError: It holds no finished run that this version can use.
        RecipeError: A component of its recipe is not installed here.
    """
    folder = RunFolder(run)
    facts = folder.facts()
    lacking = [f"{file.name} is missing" for file in (folder.snapshot, folder.weights) if not file.is_file()]
    if not folder.finished:
        lacking.append("it was stopped before its end")
    if lacking:
        advice = "Give the `stav2a run` command that began it again; it continues where it stopped."
        raise RunFolderError(f"{run} holds no finished run: {lacking[0]}.", advice=advice)
    if trust:  # its own modules, which lay beside its recipe
        sys.path += [each for each in facts.get("modules", {}).values() if each and each not in sys.path]
    loaded = recipe.load([folder.snapshot.resolve()], trust=trust, root=Experiment)
    if loaded.signature() != facts.get("configuration", facts.get("signature")):
        logger.warning(
            "warning: %s was edited, or made by another version of its components: "
            "the sound may differ from the run's own.",
            folder.snapshot,
        )
    experiment = loaded.build()
    model = experiment.model()
    for stage in (factory() for factory in experiment.stages):
        if not stage.idle:
            model.merge_adapters(changed_by(stage))
            attach_adapter(stage, model)
    written = {name: found for name, found in facts.get("files", {}).items() if name == folder.weights.name}
    try:
        model.load_state_dict(load_file(folder.weights))
        if damage(run, written):
            raise RuntimeError
    except (SafetensorError, RuntimeError):
        beside = f"{folder.snapshot.name} beside it: it is damaged, or from another run or version."
        advice = f"Run the recipe again: {folder._again()}"
        raise RunFolderError(f"{folder.weights} does not fit {beside}", advice=advice) from None
    return experiment, model.eval()
