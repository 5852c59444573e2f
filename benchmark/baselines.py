"""Baselines of the leaderboard: sounds without a model of the video, and the real sound through the codec.

    python -m benchmark.baselines                  # all, on the standard level; sounds in runs/baselines
    python -m benchmark.baselines --level hard
    python -m benchmark.baselines --against ablations/table3.gin CN --seeds 5 6 7 8 9

What draws at random is measured over several seeds. The sounds stay, to be listened to. --against prints the
paired differences to a row of a study, whose runs are in the folder of runs, and writes no submission.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from scipy.signal import find_peaks

from benchmark.leaderboard import PRIMARY
from benchmark.scoring import LEVEL_RECIPE, Scorer, options
from stav2a.data.media import write_flac
from stav2a.data.optical_flow import ClipFlow, Farneback, motion
from stav2a.data.struck_objects.rendering import HUM
from stav2a.data.struck_objects.scene import CLASSES
from stav2a.evaluation.comparison import DIRECTIONS, Comparison, compare
from stav2a.evaluation.samples import mean_flows
from stav2a.evaluation.scores import from_json
from stav2a.experiments.ablation import planning, study
from stav2a.experiments.steps import sound_name
from stav2a.metrics.alignment import video_peaks_s
from stav2a.metrics.score import Score
from stav2a.sampling.waveforms import LOUDEST, batches_of, to_audio
from stav2a.training.corpus import Corpus
from stav2a.utils.errors import SUCCESS, StaV2AError, UsageError

SEEDS = (0, 1, 2)
LICENCE = "Apache-2.0"
Runs = Mapping[int, Sequence[Score]]  # seed -> scores
# Height of a peak of motion over its surroundings, as a share of the clip's largest motion. It has the best
# AA-Align with the known onsets of good training clips of the standard level, of 0.1 to 0.6 for all frames
# (160 clips: 0.82), of 0.1, 0.2 and 0.4 for the encoder's (300 clips: 0.15).
PROMINENCE, SLOW_PROMINENCE = 0.4, 0.1
ALONE_S = 0.25  # the least time that a sample of a strike has until the next one


@dataclass(frozen=True)
class Material:
    """What the baselines are made of.

    Args:
        scorer: The clips and the autoencoder.
    """

    scorer: Scorer

    @property
    def corpus(self) -> Corpus:
        """The clips as tensors."""
        return self.scorer.trained.corpus

    @property
    def samples(self) -> int:
        """Length of a sound, S."""
        return round(self.scorer.steps.experiment.duration_s * self.corpus.sample_rate)

    @cached_property
    def test_flows(self) -> list[ClipFlow]:
        """Motion of the test clips, as AV-Align has it."""
        steps = self.scorer.steps
        clips = [self.corpus.clips[row] for row in self.corpus.test_rows]
        return mean_flows(clips, Farneback(), store=steps.store, key=steps.keys.by_kind["flows"])

    @cached_property
    def strikes(self) -> dict[str, list[np.ndarray]]:
        """Class -> sounds of single strikes of the training clips, each up to the next onset.

        Clips with a bell are left out, and strikes that the next one follows at once.
        """
        corpus, rate = self.corpus, self.corpus.sample_rate
        found: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
        for row, made in enumerate(self.scorer.dataset.performances()):  # in the order of the clips
            if corpus.clips[row].split != "train" or made.bell_s is not None:
                continue
            (sound,) = corpus.audio([row])
            edges = [*made.onsets_s, self.samples / rate]
            for start, end in zip(edges, edges[1:], strict=False):
                if end - start >= ALONE_S:
                    found[made.label].append(sound[round(start * rate) : round(end * rate)])
        return found


def silence(material: Material, seed: int) -> np.ndarray:
    """Digital silence."""
    return np.zeros((len(material.corpus.test_rows), material.samples), np.float32)


def other_clip(material: Material, seed: int) -> np.ndarray:
    """The real sound of another test clip: a random cycle through all clips, so that none has its own."""
    rows = np.array(material.corpus.test_rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    others = np.empty_like(rows)
    others[order] = rows[np.roll(order, 1)]
    return material.corpus.audio(others.tolist())


def mean_spectrogram(material: Material, seed: int) -> np.ndarray:
    """The mean of the training clips' log-mels through the vocoder, the same sound for every clip."""
    corpus = material.corpus
    train = [row for row, clip in enumerate(corpus.clips) if clip.split == "train"]
    (sound,) = corpus.model.vocoder(corpus.mel[train].mean(dim=0, keepdim=True)).cpu().numpy()
    return np.tile(sound, (len(corpus.test_rows), 1))


def nearest_clip(material: Material, seed: int) -> np.ndarray:
    """The real sound of the training clip whose picture is nearest."""
    return material.corpus.audio(nearest_rows(material))


def nearest_rows(material: Material) -> list[int]:
    """For each test clip the training clip of the nearest mean of the encoder's frames."""
    corpus = material.corpus
    train = [row for row, clip in enumerate(corpus.clips) if clip.split == "train"]
    means = corpus.frames[list(range(len(corpus.clips)))].float().mean(dim=1).flatten(1)
    nearest = torch.cdist(means[corpus.test_rows], means[train]).argmin(dim=1)
    return [train[i] for i in nearest.tolist()]


def at_peaks(
    material: Material,
    seed: int,
    *,
    find: Callable[[Material], list[np.ndarray]],
    guess: Callable[[Material, np.random.Generator], list[str | None]],
) -> np.ndarray:
    """A single strike of a training clip at each peak of motion, in the noise of the benchmark's room.

    Its class is the one that the caption names. Digital silence in place of the noise makes an FD of
    205 where it is 7, as the judge knows no sound without noise.

    Args:
        material: The clips.
        seed: Seed of strikes, guesses and noise.
        find: Times of the peaks of each test clip, in seconds.
        guess: Class of each test clip, for those with a vague caption.
    """
    corpus, rng = material.corpus, np.random.default_rng(seed)
    sounds = []
    for row, times_s, guessed in zip(corpus.test_rows, find(material), guess(material, rng), strict=True):
        clip = corpus.clips[row]
        label = guessed if clip.vague else clip.label
        assert label is not None  # all clips of the benchmark have one
        strikes = material.strikes[label]
        strike = strikes[rng.integers(len(strikes))]
        sound = HUM * rng.standard_normal(material.samples).astype(np.float32)
        for time_s in times_s:
            start = round(time_s * corpus.sample_rate)
            part = strike[: len(sound) - start]
            sound[start : start + len(part)] += part
        sounds.append(sound)
    return np.stack(sounds)


def random_class(material: Material, rng: np.random.Generator) -> list[str | None]:
    """A class at random."""
    return [str(rng.choice(CLASSES)) for _ in material.corpus.test_rows]


def nearest_class(material: Material, rng: np.random.Generator) -> list[str | None]:
    """The class of the training clip whose picture is nearest."""
    return [material.corpus.clips[row].label for row in nearest_rows(material)]


def all_peaks(material: Material) -> list[np.ndarray]:
    """Peaks of motion as AV-Align counts them: every one above 0.1 px a frame."""
    return [
        video_peaks_s(each.motion, each.frame_rate_hz, times_s=each.times_s) for each in material.test_flows
    ]


def prominent_peaks(material: Material) -> list[np.ndarray]:
    """Peaks of motion that stand out by `PROMINENCE` of the clip's largest motion."""
    return [each.times_s[_prominent(each.motion, PROMINENCE)] for each in material.test_flows]


def encoder_peaks(material: Material) -> list[np.ndarray]:
    """Peaks of motion between the frames that the feature encoder gets, half way from one to the next."""
    frames = material.corpus.frames[material.corpus.test_rows].numpy().transpose(0, 1, 3, 4, 2)
    rate_hz = material.corpus.model.feature_encoder.frame_rate_hz
    return [(_prominent(motion(film), SLOW_PROMINENCE) - 0.5) / rate_hz for film in frames]


def _prominent(flow: np.ndarray, share: float) -> np.ndarray:
    """Frames (P,) of a motion (L,) with a peak of at least this share of the largest."""
    return find_peaks(flow, prominence=share * flow.max())[0]


@torch.no_grad()
def decoded(material: Material, seed: int) -> np.ndarray:
    """The clip's own sound through autoencoder and vocoder."""
    corpus = material.corpus
    means, _ = corpus.latents()
    rows = corpus.test_rows
    parts = [to_audio(corpus.model, means[[rows[i] for i in batch]])[1] for batch in batches_of(len(rows))]
    return torch.cat(parts).cpu().numpy()


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Args:
        name: Name in the table.
        description: Description in the table.
        make: Sounds (N, S) of the test clips, from the material and a seed.
        seeds: Seeds that it is measured with; one where nothing is drawn.
    """

    name: str
    description: str
    make: Callable[[Material, int], np.ndarray]
    seeds: Sequence[int] = (0,)


STRIKE = "a training clip's strike at each peak of motion"
NAMED = "class of the caption, at random if vague"
BASELINES = (
    Baseline("Silence", "digital silence", silence),
    Baseline("Another clip", "the real sound of another test clip", other_clip, SEEDS),
    Baseline("Mean spectrogram", "mean log-mel of the training clips, by Griffin-Lim", mean_spectrogram),
    Baseline(
        "Nearest clip", "the real sound of the training clip whose mean picture is nearest", nearest_clip
    ),
    Baseline(
        "Flow peaks, all",
        f"{STRIKE} above 0.1 px a frame (all frames); {NAMED}",
        partial(at_peaks, find=all_peaks, guess=random_class),
        SEEDS,
    ),
    Baseline(
        "Flow peaks, prominent",
        f"{STRIKE} that stands out by {PROMINENCE} of the largest (all frames); {NAMED}",
        partial(at_peaks, find=prominent_peaks, guess=random_class),
        SEEDS,
    ),
    Baseline(
        "Flow peaks, few frames",
        f"{STRIKE} that stands out by {SLOW_PROMINENCE} of the largest (the encoder's frames); {NAMED}",
        partial(at_peaks, find=encoder_peaks, guess=random_class),
        SEEDS,
    ),
    Baseline(
        "Flow peaks, nearest class",
        "as prominent flow peaks; class of the caption, of the nearest training clip if vague",
        partial(at_peaks, find=prominent_peaks, guess=nearest_class),
        SEEDS,
    ),
    Baseline(
        "Real sound, decoded",
        "the clip's own sound through autoencoder and Griffin-Lim: the ceiling",
        decoded,
    ),
)


def scores_of(
    scorer: Scorer, baseline: Baseline, seeds: Sequence[int], folder: Path
) -> dict[int, list[Score]]:
    """Make a baseline's sounds with each seed, keep them in a folder, and score them."""
    material, by_seed = Material(scorer), {}
    clips = [material.corpus.clips[row] for row in material.corpus.test_rows]
    for seed in seeds:
        own = folder / baseline.name / str(seed)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        for clip, sound in zip(clips, baseline.make(material, seed), strict=True):
            write_flac(own / sound_name(clip), sound.clip(-LOUDEST, LOUDEST), material.corpus.sample_rate)
        by_seed[seed] = scorer.score(own)
    return by_seed


def measure(scorer: Scorer, baseline: Baseline, folder: Path, submissions: Path) -> Path:
    """Measure a baseline and write its submission; returns the submission's file."""
    by_seed = scores_of(scorer, baseline, baseline.seeds, folder)
    command = f"python -m benchmark.baselines --level {scorer.dataset.level}"
    facts = {"name": baseline.name, "description": baseline.description, "licence": LICENCE}
    return scorer.submission(by_seed, **facts, command=command).write(submissions)


def runs_of(study_file: Path, row: str, level: str, seeds: Sequence[int] | None, output: Path) -> Runs:
    """Scores of a study's row by seed, from the folders of its runs.

    Raises:
        UsageError: The study has no such row, or one of its runs has no scores.
    """
    loaded = study.load(study_file, [LEVEL_RECIPE.format(level)], seeds=seeds)
    runs = [run for run in planning.plan(loaded, output).runs if run.row.name == row]
    if not runs:
        names = ", ".join(each.name for each in loaded.rows)
        raise UsageError(f"{study_file} has no row {row!r}; it has {names}.")
    if missing := [run for run in runs if not run.folder.scores.exists()]:
        raise UsageError(
            f"{missing[0].title} has no scores in {missing[0].folder.path}.",
            advice=f"Run the study first, with --output {output}.",
        )
    return {run.seed: from_json(run.folder.scores.read_text()) for run in runs}


def differences(scorer: Scorer, row: str, runs: Runs, folder: Path) -> Comparison:
    """Compare all baselines with a row; what draws at random is drawn with the seeds of the row's runs."""
    seeds = list(runs)
    rows: dict[str, Runs] = {row: runs}
    for baseline in BASELINES:
        drawn = scores_of(scorer, baseline, seeds if len(baseline.seeds) > 1 else seeds[:1], folder)
        rows[baseline.name] = {seed: drawn.get(seed, drawn[seeds[0]]) for seed in seeds}
    names = {
        score.name: DIRECTIONS[score.higher_is_better] for score in runs[seeds[0]] if score.name in PRIMARY
    }
    return compare(rows, metrics=names, baseline=row)


def table(found: Comparison, row: str) -> Iterator[str]:
    """Lines of a table of the baselines' figures and of their differences to a row."""
    metrics = [metric for metric in PRIMARY if (row, metric) in found.estimates]
    yield f"| figure: less {row}'s | {' | '.join(PRIMARY[metric] for metric in metrics)} |"
    yield f"|---|{'---:|' * len(metrics)}"
    for baseline in BASELINES:
        cells = []
        for metric in metrics:
            value, less = found.estimates[baseline.name, metric], found.to_baseline[baseline.name, metric]
            assert value is not None and less is not None  # both are measured
            cells.append(f"{value.value:.3f}: {less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]")
        yield f"| {baseline.name} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the baselines, and write their submissions or print their differences to a row."""
    parser = options(__doc__)
    parser.add_argument("--against", nargs=2, metavar=("STUDY", "ROW"), help="row of a study that has run")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds of its runs (the study's)")
    given = parser.parse_args(arguments)
    if given.seeds and not given.against:
        parser.error("--seeds are those of the runs of --against.")
    try:
        if given.against:
            file, row = given.against
            runs = runs_of(Path(file), row, given.level, given.seeds, given.output)
        scorer = Scorer.prepared(given.output, given.level, bindings=["run.stages = [@stage.autoencoder]"])
        if given.against:
            print(
                *table(differences(scorer, row, runs, given.output / "against" / given.level), row), sep="\n"
            )
            return SUCCESS
        for baseline in BASELINES:
            print(measure(scorer, baseline, given.output / "baselines" / given.level, given.submissions))
    except StaV2AError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
