"""Files from elsewhere: nothing in them is run, and each mistake is told."""

import collections
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from stav2a.utils.torch_files import ConvertError, check_torch, read

STATE = {"a": torch.arange(3.0), "b.weight": torch.ones(2, 2)}


def told(path, *wrappers: str) -> str:
    with pytest.raises(ConvertError) as error:
        read(path, wrappers)
    return str(error.value)


def test_tensors_are_found_under_their_wrapper_and_without_module(tmp_path):
    ordered = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in STATE.items())
    torch.save({"epoch": 3, "state_dict": ordered, "optimizer": {"lr": 0.1}}, tmp_path / "a.ckpt")
    source = read(tmp_path / "a.ckpt", ["state_dict"])
    assert list(source.tensors) == ["a", "b.weight"] and torch.equal(source.tensors["a"], STATE["a"])
    assert list(source.beside) == ["epoch", "optimizer"]


def test_the_oldest_format_is_read_too(tmp_path):
    torch.save(STATE, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(read(tmp_path / "a.bin").tensors["b.weight"], STATE["b.weight"])


def test_a_file_that_is_not_there(tmp_path):
    assert told(tmp_path / "a.bin").endswith(
        "a.bin: there is no such file. Download it first; see docs/weights.md."
    )


@pytest.mark.parametrize("suffix", ["bin", "ckpt", "safetensors"])
def test_a_file_cut_off(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    save = save_file if suffix == "safetensors" else torch.save
    save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:3000])
    assert "a." + suffix + " can't be read as a checkpoint. It is cut off, or no torch or safe" in told(path)
    assert "Download it again; its sha256 is " in told(path)


@pytest.mark.parametrize("content", [b"", b"<!doctype html><p>Sign in", b"\x80\x02garbage"])
def test_a_file_of_something_else(content, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert "can't be read as a checkpoint" in told(path)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as file:
        file.writestr("readme.txt", "hello")
    assert "can't be read as a checkpoint" in told(tmp_path / "a.bin")


def test_a_pointer_instead_of_the_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert told(path).endswith(
        "is a Git LFS pointer, not the weights themselves. Fetch them with git lfs pull."
    )


class Surprise:
    def __reduce__(self):
        return print, ("run!",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"a": torch.ones(1), "b": Surprise()}, tmp_path / "a.bin")
    assert "a.bin holds Python objects besides tensors (" in told(tmp_path / "a.bin")
    assert "which could run code, so it was not loaded" in told(tmp_path / "a.bin")
    assert capsys.readouterr().out == ""


def test_a_file_without_tensors(tmp_path):
    torch.save({"epoch": 3, "model": STATE}, tmp_path / "a.bin")
    assert told(tmp_path / "a.bin", "state_dict").endswith(
        "a.bin holds epoch, model; expected tensors by name or an entry 'state_dict' with them."
    )


def test_names_with_and_without_module(tmp_path):
    torch.save({"a": torch.ones(1), "module.a": torch.ones(1)}, tmp_path / "a.bin")
    assert told(tmp_path / "a.bin").endswith("holds keys both with and without 'module.' before them.")


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cu117"])
def test_a_torch_that_can_be_tricked_is_refused(version):
    with pytest.raises(ConvertError) as error:
        check_torch(version)
    assert str(error.value) == (
        f"torch {version} can be made to run code by a checkpoint file, even with weights_only=True. "
        "Install torch 2.10 or newer."
    )


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0"])
def test_later_ones_are_taken(version):
    check_torch(version)
