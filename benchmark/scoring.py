"""Scores of anybody's sounds of the benchmark's test clips, by the metrics and the judge of the laptop scale.

    python -m benchmark.scoring --name 'My system' --description '…' --licence MIT \
        --link https://example.org --sounds out/seed0 out/seed1 out/seed2

A folder holds a sound a test clip, named after the clip: test_00000.wav or .flac. Each folder is a seed of
the system. The first run renders the clips and trains the judge, in minutes. More in docs/leaderboard.md.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchmark.leaderboard import (
    METRICS,
    SUBMISSIONS,
    Submission,
    SubmissionError,
    figure,
    software,
    text_faults,
)
from stav2a import recipe
from stav2a.data.clip import file_stem
from stav2a.data.media import read_audio
from stav2a.data.optical_flow import Farneback
from stav2a.data.struck_objects import StruckObjects
from stav2a.data.struck_objects.scene import LEVELS
from stav2a.evaluation.comparison import DIRECTIONS, compare
from stav2a.evaluation.folders.pairing import SOUNDS, files_in
from stav2a.experiments.experiment import Experiment
from stav2a.experiments.steps import RunSteps, TrainingOutcome
from stav2a.experiments.tracking import environment
from stav2a.metrics.score import Score
from stav2a.utils.errors import SUCCESS, StaV2AError, UsageError
from stav2a.utils.resampling import fit_audio
from stav2a.utils.store import Store

SHORTEST = 0.98  # of a clip's duration
LEVEL_RECIPE = "recipes/levels/{}.gin"


@dataclass(frozen=True)
class Scorer:
    """The benchmark's clips, the trained judge, and whatever else the recipe trains.

    Args:
        steps: Steps of a run that holds the metrics.
        trained: Their result.
    """

    steps: RunSteps
    trained: TrainingOutcome

    @classmethod
    def prepared(
        cls,
        output: Path,
        level: str = "standard",
        *,
        recipes: Sequence[str] = (),
        bindings: Sequence[str] = (),
    ) -> "Scorer":
        """Render and decode the clips and train the judge, or take them from the store.

        Args:
            output: Folder of runs, whose store is used; that of a study has all of it already.
            level: Level of the benchmark.
            recipes: Recipes laid over that of the laptop scale.
            bindings: Bindings laid over them; by default nothing but the judge is trained.
        """
        files = ["recipes/cn.gin", LEVEL_RECIPE.format(level), *recipes]
        loaded = recipe.load(files, ["run.stages = []", *bindings], root=Experiment)
        steps = RunSteps(loaded.build(), Store.of(output), lambda *loss: None, _print_line)
        return cls(steps, steps.train(Farneback()))

    @property
    def dataset(self) -> StruckObjects:
        """The dataset."""
        assert isinstance(self.steps.keys.dataset, StruckObjects)
        return self.steps.keys.dataset

    def score(self, folder: Path) -> list[Score]:
        """Score a folder of sounds.

        Raises:
            UsageError: A clip without a sound, or with one that is too short.
        """
        return self.steps.measure(self.trained, [self._sounds(folder)], Farneback())[1]

    def _sounds(self, folder: Path) -> Iterator[np.ndarray]:
        corpus = self.trained.corpus
        clips = [corpus.clips[row] for row in corpus.test_rows]
        files = files_in(folder, SOUNDS, "--sounds")
        missing = [file_stem(clip.id) for clip in clips if file_stem(clip.id) not in files]
        if missing:
            count = f"{len(missing)} of {len(clips)} test clips have no sound"
            advice = "Give each clip a file of its name."
            raise UsageError(f"--sounds {folder}: {count}, such as {missing[0]}.", advice=advice)
        samples = round(self.steps.experiment.duration_s * corpus.sample_rate)
        for clip in clips:
            sound = read_audio(files[file_stem(clip.id)], corpus.sample_rate)
            if len(sound) < SHORTEST * samples:
                lasts = len(sound) / corpus.sample_rate
                raise UsageError(
                    f"{files[file_stem(clip.id)]} lasts {lasts:.2f} s; expected the clip's "
                    f"{self.steps.experiment.duration_s:g} s.",
                    advice="Make the sound as long as the clip.",
                )
            yield fit_audio(sound, samples)[None]

    def submission(self, by_seed: Mapping[int, Sequence[Score]], **facts: str) -> Submission:
        """Submission of a system's scores: means over its seeds, with intervals over seeds and clips.

        Args:
            by_seed: Scores by seed of the system.
            facts: Name, description, licence, and command or link.
        """
        names = {score.name: DIRECTIONS[score.higher_is_better] for score in next(iter(by_seed.values()))}
        found = compare({facts["name"]: by_seed}, metrics=names, baseline=facts["name"])
        estimates = {name: found.estimates.get((facts["name"], name)) for name in names}
        clips = {metric.score.name: metric.clips for metric in found.metrics}
        return Submission(
            benchmark={
                "version": self.dataset.version,
                "level": self.dataset.level,
                "seed": self.dataset.seed,
                "clips": self.dataset.counts["test"],
            },
            seeds=list(by_seed),
            metrics={
                name: figure(each.value, each.low, each.high, clips[name])
                for name, each in estimates.items()
                if each is not None and name in METRICS
            },
            date=date.today().isoformat(),
            versions=software(environment()),
            **facts,
        )


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def options(doc: str | None) -> argparse.ArgumentParser:
    """Parser with the options that both scripts have: level, output and submissions."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--level", default="standard", choices=LEVELS)
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder of runs, whose store is used"
    )
    parser.add_argument("--submissions", type=Path, default=SUBMISSIONS, help="folder of what is written")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Score folders of sounds and write the submission."""
    parser = options(__doc__)
    for name in ("name", "description", "licence"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--command", default="", help="command that makes the sounds")
    parser.add_argument("--link", default="", help="page of the system")
    parser.add_argument("--sounds", type=Path, nargs="+", required=True, help="a folder a seed: 0, 1, …")
    given = vars(parser.parse_args(arguments))
    sounds, level, output, submissions = (given.pop(n) for n in ("sounds", "level", "output", "submissions"))
    try:
        if faults := list(text_faults(given)):
            raise SubmissionError("\n".join(faults))
        for folder in sounds:  # before the clips are made, which takes minutes
            files_in(folder, SOUNDS, "--sounds")
        scorer = Scorer.prepared(output, level)
        by_seed = {seed: scorer.score(folder) for seed, folder in enumerate(sounds)}
        print(scorer.submission(by_seed, **given).write(submissions))
    except StaV2AError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
