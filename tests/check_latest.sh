#!/bin/sh
# Installs the wheel away from the clone, without constraints.txt, with the newest and with the oldest packages that
# pyproject.toml allows, and runs the smoke recipe. Called by `make check-latest` with PYTHON and TORCH.
set -eu
clone=$(pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$PYTHON" -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip install --quiet uv
"$folder/tools/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$clone"
echo "$TORCH" > "$folder/torch.txt"
cd "$folder"

for resolution in highest lowest-direct; do
    echo "== $resolution =="
    tools/bin/uv venv --quiet --python tools/bin/python "$resolution"
    # By -r its packages are asked for directly: of a wheel's own ones lowest-direct takes the newest.
    tools/bin/uv pip install --quiet --python "$resolution/bin/python" --resolution "$resolution" \
        --constraint torch.txt -r "$clone/pyproject.toml" ./stav2a-*.whl
    tools/bin/uv pip freeze --quiet --python "$resolution/bin/python" | paste -sd ' ' -
    "$resolution/bin/python" -c "from stav2a import registry; registry.load()"
    bin=$resolution/bin
    "$bin/stav2a" run --gin recipes/cn_onset_gvf.gin --gin recipes/scale/smoke.gin --output "$resolution-runs"
    run=$(dirname "$resolution"-runs/*/run.json)
    clips=$(dirname "$(find "$resolution-runs" -name 'test_00000.mp4' | head -n 1)")
    "$bin/stav2a" generate "$clips/test_00000.mp4" --run "$run" --prompt "a drum" --output "$resolution-sounds"
    "$bin/stav2a" evaluate --references "$clips" --generated "ours=$resolution-sounds" \
        --metrics aa_align av_align --output "$resolution-scores"
    "$bin/stav2a" prepare --manifest "$clips" --videos "$clips" --gin recipes/cn.gin \
        --gin recipes/scale/smoke.gin --output "$resolution-data"
done
echo "the newest and the oldest allowed packages work with $("$PYTHON" --version)"
