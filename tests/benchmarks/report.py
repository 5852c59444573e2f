"""The committed results as docs/performance.md, and into MLflow: `python -m tests.benchmarks.report`."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stav2a.experiments.tracking import connect
from stav2a.utils.files import write_text

HERE = Path(__file__).parent
RESULTS, TEXT = HERE / "results", HERE / "performance.md"
PAGE = HERE.parents[1] / "docs" / "performance.md"
METRICS = ("aa_align", "onset_f1", "fd", "class_accuracy_vague")


def page(text: str, results: Mapping[str, Any]) -> str:
    """What was written by hand, with the tables of the results in their places: `{{loops}}` and others."""
    tables = {
        "loops": _all(loop_table, loops(results)),
        "training": _all(training_table, of_kind("training-", results)),
        "sound": _all(sound, of_kind("sound-", results)),
        "quality": quality_table(results.get("quality", {})),
    }
    for place, made in tables.items():
        text = text.replace(f"{{{{{place}}}}}", made)
    return text


def _all(made: Callable[[str, Any], str], results: Mapping[str, Any]) -> str:
    return "\n\n".join(made(name, record) for name, record in results.items())


def of_kind(kind: str, results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record for name, record in results.items() if name.startswith(kind)}


def loops(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results of the denoising loop: named after their device."""
    return of_kind("cpu-", results) | of_kind("gpu-", results)


def loop_table(name: str, record: Mapping[str, Any]) -> str:
    """The variants of the loop at one scale, with the machine that they were measured on."""
    best = record["ceilings"]
    lines = [
        f"### {record['scale']}, batch {record['batch']} ({name})",
        "",
        f"{where(record['machine'])} {record['million_parameters']:.1f} M parameters, "
        f"{record['gflop_a_step']:.4g} GFLOP a step. Ceilings measured in the same run: "
        f"{best['float32']:.0f} GFLOP/s in float32, "
        + (f"{best['tf32']:.0f} in TF32, " if "tf32" in best else "")
        + f"{best['bfloat16']:.0f} in bfloat16, "
        f"{best['copy']:.0f} GB/s of copying. {record['rounds']} rounds of {record['steps']} steps; "
        f"peak memory of the whole process {record['peak_memory_gb']:.1f} GB.",
        "",
        *table(
            ["variant", "ms a step", "quartiles", "share of ceiling", "of plain", "quartiles", "expected",
             "exact", "error", "first run, s"],
            rows(record),
        ),
    ]  # fmt: skip
    return "\n".join(lines)


def rows(record: Mapping[str, Any]) -> Iterator[list[str]]:
    kind = record["clock"]
    measured = {name: arm for name, arm in record["arms"].items() if "ratio" in arm}
    for name, arm in sorted(measured.items(), key=lambda each: -each[1]["ratio"]["median"]):
        ms = {key: 1000 * value / record["steps"] for key, value in arm[kind].items()}
        # records before precisions were kept have them in the rungs' names, and called bfloat16 not exact
        precision = arm.get("precision", "bfloat16" if "bfloat16" in name else "float32")
        ceiling = record["ceilings"][precision]
        whole = arm["exact"] or "bfloat16" in name  # a shortcut takes fewer operations
        share = f"{record['gflop_a_step'] * 1000 / ms['median'] / ceiling:.0%}" if whole else "–"
        ratio = arm["ratio"]
        yield [
            name, f"{ms['median']:.4g}", f"{ms['q1']:.4g} to {ms['q3']:.4g}", share,
            f"{ratio['median']:.2f}", f"{ratio['q1']:.2f} to {ratio['q3']:.2f}", expected(arm),
            exactness(arm), f"{arm['error']:.0e}",
            f"{arm['first_run_s']['wall']:.1f}",
        ]  # fmt: skip


def expected(arm: Mapping[str, Any]) -> str:
    """The ratio, or the milliseconds of a step, that were written down before."""
    if arm.get("predicted_ms"):
        low, high = arm["predicted_ms"]
        return f"{low:g} ms" if low == high else f"{low:g} to {high:g} ms"
    return "–" if arm["expected"] is None else f"{arm['expected']:.2f}"


def exactness(arm: Mapping[str, Any]) -> str:
    """Whether a rung is exact but for its precision's rounding, and if so, whether the error is no more."""
    allowed = arm.get("allowed_error")
    if not arm["exact"] or allowed is None:
        return "yes" if arm["exact"] else "no"
    return "yes" if arm["error"] <= allowed else f"**no: above {allowed:.0e}**"


def training_table(name: str, record: Mapping[str, Any]) -> str:
    """The variants of a training step at one scale, and the time of its data."""
    waits, saved = (record["pieces"][each]["median"] for each in ("drawing a batch", "encoding its clips"))
    plain = record["arms"]["plain AdamW"]["seconds"]["median"]
    found = sorted(record["arms"].items(), key=lambda each: -each[1]["ratio"]["median"])
    lines = [
        f"### {record['scale']}, batch {record['batch']} ({name})",
        "",
        f"{where(record['machine'])} {record['rounds']} rounds of a step; peak memory of the whole process "
        f"{record['peak_memory_gb']:.1f} GB. Of a plain step {waits / plain:.1%} is drawing its batch; "
        f"encoding its clips, which is done once a dataset, would add {saved / plain:.0%}.",
        "",
        *table(
            [
                "step",
                "ms",
                "quartiles",
                "of plain",
                "quartiles",
                "expected",
                "exact",
                "error",
                "start and first steps, s",
            ],
            (_step(step, arm) for step, arm in found),
        ),
    ]
    return "\n".join(lines)


def _step(name: str, arm: Mapping[str, Any]) -> list[str]:
    ms, ratio = {key: 1000 * value for key, value in arm["seconds"].items()}, arm["ratio"]
    return [
        name, f"{ms['median']:.4g}", f"{ms['q1']:.4g} to {ms['q3']:.4g}",
        f"{ratio['median']:.2f}", f"{ratio['q1']:.2f} to {ratio['q3']:.2f}", f"{arm['expected']:.2f}",
        "yes" if arm["exact"] else "no", f"{arm['error']:.0e}", f"{arm['first_run_s']:.1f}",
    ]  # fmt: skip


def sound(name: str, record: Mapping[str, Any]) -> str:
    """Time of a sound, whole and by piece."""
    head = ["from a caption to a waveform, or a piece of it", "ms", "quartiles"]
    times = ((each, {k: 1000 * s for k, s in found.items()}) for each, found in record["seconds"].items())
    lines = [
        f"{where(record['machine'])} One sound of {record['duration_s']} s, {record['rounds']} rounds; "
        f"peak memory {record['peak_memory_gb']:.1f} GB ({name}).",
        "",
        *table(head, ([n, f"{ms['median']:.4g}", f"{ms['q1']:.4g} to {ms['q3']:.4g}"] for n, ms in times)),
    ]
    return "\n".join(lines)


def where(machine: Mapping[str, Any]) -> str:
    """Device, versions and date."""
    device = f"{machine['device']}, {machine['threads']} thread(s), load {machine['load']}"
    versions = f"torch {machine['torch']}, diffusers {machine['diffusers']}, Python {machine['python']}"
    return f"{device}; {versions}; {machine['date']}."


def quality_table(quality: Mapping[str, Any]) -> str:
    """Each row's scores with their intervals, and the processor's seconds of sampling."""
    return "\n".join(
        table(
            ["sampling", "s of CPU", *(f"{name}" for name in METRICS)],
            (
                [name, f"{found['cpu_s']:.0f}", *(score(found["scores"], metric) for metric in METRICS)]
                for name, found in quality.items()
            ),
        )
    )


def score(scores: Sequence[Mapping[str, Any]], metric: str) -> str:
    """A score, corrected for chance where it is, with its interval."""
    found = next((each for each in scores if each["name"] == metric), None)
    if found is None:
        return "–"
    corrected = f", corrected {found['corrected']:.3f}" if found["corrected"] is not None else ""
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]{corrected}"


def table(head: Sequence[str], lines: Iterator[Sequence[str]] | Any) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]


def track(records: Mapping[str, Any], uri: str | None, root: Path) -> None:
    """Every record as a run of the MLflow experiment `benchmarks`."""
    for name, record in records.items():
        with connect(uri, root, experiment="benchmarks", run_name=name) as tracker:
            tracker.log_params({**record["machine"], **{k: record[k] for k in ("scale", "batch", "steps")}})
            for arm, found in record["arms"].items():
                slug = arm.replace(", ", "-").replace(" ", "_")
                tracker.log_metrics(
                    {f"{slug}/ratio": found["ratio"]["median"], f"{slug}/error": found["error"]}
                )
            tracker.log_artifact(RESULTS / f"{name}.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tracking-uri", help="as in `stav2a run`; none tracks nothing")
    arguments = parser.parse_args()
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    write_text(PAGE, page(TEXT.read_text(), found))
    track(loops(found), arguments.tracking_uri, HERE.parents[1] / "runs")
    print(PAGE)


if __name__ == "__main__":
    main()
