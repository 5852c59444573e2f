"""Prepared clips are found again under their key, wherever their files have gone."""

from dataclasses import dataclass

from stav2a.components.feature_encoders import CAVP
from stav2a.data.filters import KeepAll
from stav2a.data.onsets import SuperFlux
from stav2a.data.struck_objects import StruckObjects
from stav2a.training.corpus import decoded_clips
from stav2a.utils.store import Store


@dataclass
class Wanted:
    """What preparation asks of a model."""

    feature_encoder: CAVP
    duration_s: float = 2.56


def test_a_moved_folder_of_clips_is_decoded_once(tmp_path):
    world = StruckObjects(train_clips=1, validation_clips=0, test_clips=1)
    model = Wanted(CAVP(width=4, blocks=(1, 1), dim=4, frame_rate_hz=12.5, frame_size=16))
    store = Store(tmp_path / "store")

    def ask(folder):
        return decoded_clips(
            world.clips(folder), model, SuperFlux(), {"all": KeepAll()}, store=store, key="the same key"
        )

    there = ask(tmp_path / "there")
    (tmp_path / "there").rename(tmp_path / "here")
    here = ask(tmp_path / "here")
    assert (here.frames == there.frames).all() and here.decisions == there.decisions
    assert all(clip.video.is_file() and clip.video.is_relative_to(tmp_path / "here") for clip in here.clips)
