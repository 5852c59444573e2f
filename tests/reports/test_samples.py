"""A run's samples as files: sounds, films that a page plays, and what is told of each clip."""

from pathlib import Path

import av
import numpy as np
import pytest

from stav2a.data.clip import Clip
from stav2a.data.mel import SAMPLE_RATE
from stav2a.evaluation.samples import Generated
from stav2a.experiments.run_folder import RunFolder
from stav2a.reports.pages import sample_clips, write_samples
from tests.data.strange_films import film


def made(video: Path, *ids: str) -> Generated:
    """Two seconds of noise for each id, all of them with one picture."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (len(ids), 2 * SAMPLE_RATE)).astype(np.float32)
    return Generated([Clip(each, video, "a bell", "test") for each in ids], noise, noise, SAMPLE_RATE)


FILMS = {
    "VP8": ("x.webm", "libvpx", "yuv420p"),
    "ProRes": ("x.mov", "prores_ks", "yuv422p10le"),
    "MJPEG": ("x.avi", "mjpeg", "yuvj420p"),
}


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FILMS.values(), ids=FILMS)
def test_a_picture_that_mp4_does_not_hold_is_encoded_for_the_page(name, codec, pix_fmt, tmp_path):
    video = film(tmp_path / name, codec=codec, pix_fmt=pix_fmt)
    write_samples(made(video, "a"), tmp_path / "samples", count=1)
    with av.open(str(tmp_path / "samples" / "a.mp4")) as written:
        assert written.streams.video[0].codec_context.name == "h264"


def test_ids_that_are_paths_name_files_of_the_folder_and_are_kept(tmp_path):
    ids = ["a", "sub/b", "../../esc", "sub_b", "a.reference", "x" * 300, "ü 1"]
    video, run = film(tmp_path / "x.mp4"), RunFolder(tmp_path / "runs" / "cn")
    write_samples(made(video, *ids), run.samples, count=len(ids))
    files = {path.name for path in run.samples.iterdir() if path.is_file()}
    assert len(files) == 4 * len(ids) + 1 == len([*(tmp_path / "runs").rglob("*.*")])
    assert {"a.mp4", "a.reference.wav", "sub_b.wav", "ü 1.png"} <= files
    clips = sample_clips({"ours": run.samples}, {"ours": []}, [])
    assert [clip.id for clip in clips] == ids
    shown = [path for clip in clips for path in (clip.reference, clip.rows["ours"].video)]
    assert len({*shown}) == 2 * len(ids) and {path.name for path in shown} <= files
