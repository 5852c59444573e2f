"""The benchmark's sounds named by a classifier of AudioSet: right names, shares, missing weights."""

from functools import cached_property

import pytest
import torch

from benchmark import audioset_names
from benchmark.audioset_names import RIGHT, Named, names_of_classes
from stav2a.data.struck_objects.scene import CLASSES
from stav2a.metrics.judges import yamnet
from stav2a.metrics.judges.yamnet import YAMNet
from stav2a.utils.errors import SUCCESS
from tests.metrics.judges import judge_networks


class RandomYAMNet(YAMNet):
    """YAMNet with weights that were not trained, and classes of such names."""

    fault = None

    @cached_property
    def model(self):
        torch.manual_seed(0)
        network = judge_networks.yamnet()
        torch.nn.init.zeros_(network.logits.bias)  # else the same classes are the likeliest of all sounds
        return network.eval()

    @property
    def classes(self):
        return [f"class {i}" for i in range(yamnet.CLASSES)]


def test_each_class_of_the_benchmark_has_right_names():
    assert list(RIGHT) == list(CLASSES)
    assert all(RIGHT.values())


def test_shares_are_of_the_first_name_and_of_the_first_three():
    named = Named(
        "glass", [("Glass", "Bell", "Ping"), ("Bell", "Ping", "Shatter"), ("Bell", "Ding", "Music")]
    )
    assert (named.first_is_right, named.one_is_right) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert named.row() == "| glass | 0.33 | 0.67 | Bell 2, Glass 1 |"


def test_each_class_gets_the_names_of_its_own_clips():
    two, one = (names_of_classes(RandomYAMNet(), seed=1, clips=clips) for clips in (2, 1))
    assert [each.label for each in two] == list(CLASSES)
    assert all(len(each.names) == 2 and len(set(each.names[0])) == 3 for each in two)
    assert [each.names[0] for each in one] == [each.names[0] for each in two]
    other = names_of_classes(RandomYAMNet(), seed=2, clips=1)
    assert [each.names for each in other] != [each.names for each in one]


def test_missing_weights_are_told_with_the_remedy(monkeypatch, capsys):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    monkeypatch.setattr(yamnet, "EXTRA", "no-such-package")
    assert audioset_names.main([]) != SUCCESS
    assert "weights of YAMNet not found" in (told := capsys.readouterr().err) and "stav2a[yamnet]" in told


@pytest.mark.parametrize("clips", [0, -1])
def test_no_clips_are_refused(clips, capsys):
    with pytest.raises(SystemExit):
        audioset_names.main(["--clips", str(clips)])
    assert f"--clips is {clips}; expected 1 or more" in capsys.readouterr().err
