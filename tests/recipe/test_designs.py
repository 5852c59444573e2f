"""The designs of Table I: recipes that load at every scale and train their denoisers equally long."""

from pathlib import Path

import pytest

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.experiments.ablation import study
from stav2a.experiments.experiment import DENOISER, Experiment
from stav2a.experiments.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
DESIGNS = sorted((ROOT / "recipes/designs").glob("*.gin"))
SCALES = sorted(path.stem for path in (ROOT / "recipes/scale").glob("*.gin"))
every_design = pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)


@every_design
@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_lies_over_every_design(path, scale):
    recipe.load([path, f"recipes/scale/{scale}.gin"], strict=True, root=Experiment)


@every_design
def test_a_design_is_at_most_ten_lines_and_names_its_paper(path):
    lines = path.read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) <= 10
    assert "arXiv:" in path.read_text().split("include")[0]


def test_sta_v2a_is_the_whole_model():
    whole, design = (
        recipe.load(f"recipes/{name}.gin", root=Experiment) for name in ("cn_onset_gvf", "designs/sta_v2a")
    )
    assert whole.signature() == design.signature()


@pytest.mark.parametrize(
    "name", ["sta_v2a", "vta_ldm", "diff_foley", "t2av", "foleycrafter", "im2wav", "mmaudio"]
)
def test_every_denoiser_sees_as_many_examples(name):
    stages = [
        factory() for factory in recipe.load(f"recipes/designs/{name}.gin", root=Experiment).build().stages
    ]
    denoising = [stage for stage in stages if DENOISER & set(stage.trains)]
    assert sum(stage.steps * stage.batch_size for stage in denoising) == (450 + 80 + 300) * 16
    others = {
        type(stage).__name__: stage.steps * stage.batch_size for stage in stages if stage not in denoising
    }
    assert others["ContrastiveStage"] == 250 * 16 and others["AutoencoderStage"] == 250 * 32
    assert others.get("OnsetStage", 1000 * 64) == 1000 * 64


def test_every_design_is_a_row_of_the_table():
    rows = study.load("ablations/table1.gin").rows
    named = {path.stem for row in rows for path in row.recipes}
    assert {path.stem for path in DESIGNS} <= named


def test_diff_foley_starts_from_nothing_at_every_scale():
    (row,) = (row for row in study.load("ablations/table1.gin").rows if row.name == "Diff-Foley")
    for scale in SCALES:
        files = [*row.recipes, f"recipes/scale/{scale}.gin"]
        loaded = recipe.load(files, list(row.bindings), strict=True, root=Experiment)
        assert loaded.build().described("unet")["parameters"]["checkpoint"] is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_foleycrafter_runs_from_beginning_to_end(tmp_path, capsys):
    """The design with the most components of its own."""
    files = ["--gin", "recipes/designs/foleycrafter.gin", "--gin", "recipes/scale/smoke.gin"]
    assert main(["run", *files, "--output", str(tmp_path), "--tracking-uri", "none"]) == 0
    (folder,) = tmp_path.glob("foleycrafter-*")
    assert RunFolder(folder).finished
