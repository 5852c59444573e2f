"""Strangers' files in an evaluation: frames at their own times, files that are none, names in two forms."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stav2a import registry
from stav2a.cli.main import main
from stav2a.data.clip import Clip
from stav2a.data.filters import AVAlignFilter
from stav2a.data.media import decode, write_wav
from stav2a.data.optical_flow import Farneback
from stav2a.evaluation.folders import pairing
from stav2a.evaluation.folders.features import ArrayCache, cached_as, extract
from stav2a.evaluation.folders.systems import choose, score
from stav2a.evaluation.samples import Generated, evaluation_set, mean_flows
from stav2a.metrics.score import EvaluationSet, describe
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store
from tests.data.jumps import JUMPS_S, clicks, jumping

RATE_HZ = 16_000


registry.load()


@pytest.fixture(params=["constant", "variable"])
def clip(request, tmp_path) -> Path:
    (tmp_path / "real").mkdir()
    return jumping(tmp_path / "real" / "a.mp4", variable=request.param == "variable")


def sound(folder: Path, name: str = "a.wav", samples: np.ndarray | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    write_wav(folder / name, clicks() if samples is None else samples, RATE_HZ)
    return folder / name


def scored(folder: Path, metrics: tuple[str, ...] = ("av_align",), **options):
    clips, unpaired = pairing.pair(folder / "real", {"ours": folder / "ours"}, **options)
    chosen = [each.metric for each in choose(metrics)]
    return score(clips, chosen, crops=[None], cache=folder / "cache", unpaired=unpaired, workers=1)


def test_frames_have_their_own_times_in_evaluate(clip, tmp_path):
    sound(tmp_path / "ours")
    (found,) = scored(tmp_path).scores[None]["ours"]
    assert found.value == 1.0


def test_frames_have_their_own_times_in_a_run(clip, tmp_path):
    flows = mean_flows([Clip("a", clip, "", "test")], Farneback(), store=Store(tmp_path / "store"), key="x")
    made = Generated([Clip("a", clip, "", "test")], clicks()[None], clicks()[None], RATE_HZ)
    samples: EvaluationSet = evaluation_set(made, flows, None, [])
    (metric,) = choose(["av_align"])
    assert metric.metric(samples).value == 1.0


def test_frames_have_their_own_times_in_the_filter(clip):
    decision = AVAlignFilter()(decode(clip))
    assert decision.score == 1.0 and decision.reason.startswith(f"kept: 1.00 ≥ 0.2 ({len(JUMPS_S)} onsets")


def test_what_is_no_sound_is_left_out_with_its_reason(tmp_path):
    for side in ("real", "ours"):
        for name in ("a.wav", "b.wav", "c.wav", "d.wav", "e.wav", "f.wav", "g.wav"):
            sound(tmp_path / side, name)
    for name in ("b.wav", "c.wav", "d.wav"):
        (tmp_path / "ours" / name).unlink()
    sound(tmp_path / "ours", "b.wav", np.ones(32))  # 2 ms
    (tmp_path / "ours" / "c.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "ours" / "d.wav").mkdir()
    os.truncate(tmp_path / "ours" / "e.wav", (tmp_path / "ours" / "e.wav").stat().st_size // 2)
    (tmp_path / "real" / "f.wav").write_text("no sound")
    (tmp_path / "ours" / "g.wav").write_bytes(b"")
    found = scored(tmp_path, ("aa_align",))
    assert found.ids[None] == ["a"]
    reasons = {each.clip: each.reason for each in found.skipped}
    assert "lasts 2 ms; a spectrogram needs 27 ms" in reasons["b"]
    assert re.search(
        r"e.wav: cut off: \d+ of \d+ bytes of sound are there. Give a complete sound", reasons["e"]
    )
    assert "f.wav: not a readable sound or video, or cut off (" in reasons["f"]
    assert "g.wav: an empty file (0 bytes). Give a complete sound or video file (wav, " in reasons["g"]
    assert reasons["c"] == reasons["d"] == f"no such file in {tmp_path / 'ours'}"


def test_names_that_differ_by_the_form_of_their_accents_are_one_clip(tmp_path):
    name = "Café"
    sound(tmp_path / "real", unicodedata.normalize("NFC", f"{name}.wav"))
    sound(tmp_path / "ours", unicodedata.normalize("NFD", f"{name}.wav"))
    (tmp_path / "captions.csv").write_text(
        f"id,caption\n{unicodedata.normalize('NFD', name)},a cup\n", encoding="utf-8"
    )
    (clip,), skipped = pairing.pair(
        tmp_path / "real", {"ours": tmp_path / "ours"}, captions=tmp_path / "captions.csv"
    )
    assert skipped == [] and clip.caption == "a cup"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,caption\na,a bell\nb,"12 inch drum\nc,x\n', "line 3: a quote opens a field"),
        ("id,caption\na,a bell\nb,x\na,a drum\n", "line 4: a second caption for 'a'. Keep one a clip."),
        ("id,caption\na,a\0bell\n", r"line 2: the control character '\\x00'. Take it out."),
        ('id,caption\n\n\na,a bell\n\nb,"x\ny"\nc\n', "line 8: 1 fields where the header has 2"),
    ],
)
def test_a_fault_in_captions_is_named_by_its_line(text, message, tmp_path):
    sound(tmp_path / "real"), sound(tmp_path / "ours")
    (tmp_path / "captions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        pairing.pair(tmp_path / "real", {"ours": tmp_path / "ours"}, captions=tmp_path / "captions.csv")


def test_captions_of_no_clip_are_told_in_one_line(tmp_path, caplog):
    sound(tmp_path / "real"), sound(tmp_path / "ours")
    file = tmp_path / "captions.csv"
    file.write_text("id,caption\na,a bell\na,a bell\nz,a drum\ny,a horn\n", encoding="utf-8")
    pairing.pair(tmp_path / "real", {"ours": tmp_path / "ours"}, captions=file)
    assert caplog.messages == [f"note: {file}: 2 of 3 ids are no clip here, such as 'z'."]


def test_a_sound_that_changes_while_it_is_scored_is_left_out_and_nothing_of_it_is_kept(tmp_path):
    @dataclass
    class Slow:
        file: Path
        definition = "slow"

        def __call__(self, audio, sample_rate):
            self.file.write_bytes(self.file.read_bytes() + b"more")
            return audio[:1]

    sound(tmp_path / "real"), sound(tmp_path / "ours", samples=0.5 * clicks())
    (clip,), _ = pairing.pair(tmp_path / "real", {"ours": tmp_path / "ours"})
    cache = ArrayCache(tmp_path / "cache")
    slow, more = Slow(clip.files["ours"]), {"models": [], "crops": [None], "flow": None, "cache": cache}
    found = extract(clip, extractors=[slow], **more)
    assert "changed while it was read. Give the command again" in found.faults["ours"]
    assert cache.get(found.contents["ours"], cached_as(describe(slow), found.common_s)) is None


def test_files_that_the_evaluation_did_not_make_are_not_replaced(tmp_path, capsys):
    sound(tmp_path / "real"), sound(tmp_path / "ours")
    own = tmp_path / "table.csv"
    own.write_text("mine", encoding="utf-8")
    command = ["evaluate", "--references", str(tmp_path / "real"), "--generated", f"x={tmp_path / 'ours'}"]
    command += ["--metrics", "aa_align", "--output", str(tmp_path), "--tracking-uri", "none"]
    (tmp_path / "report.html").mkdir()
    assert main([*command, "--overwrite"]) == 2
    assert f"{tmp_path / 'report.html'} is a folder, where a file is" in capsys.readouterr().err
    (tmp_path / "report.html").rmdir()
    assert main(command) == 2
    assert f"{own} is there already, and this command did not make it." in capsys.readouterr().err
    assert own.read_text(encoding="utf-8") == "mine"
    assert main([*command, "--overwrite"]) == 0
    assert main(command) == 0  # its own, by now
    assert os.path.getsize(own) > 4
