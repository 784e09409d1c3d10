#!/usr/bin/env bash
# Runs image prompts by the visual generator with three seeds.
# Usage: experiments/visual.sh MODEL.onnx FOLDER_WITH_TRAIN_DEV_TEST OUT
# Without MNIST, run python experiments/digits.py digits, and give digits as the folder.
set -euo pipefail
here=$(dirname "$0") model=$1 data=$2 out=$3
mkdir -p "$out"
sed "s|^model = .*|model = \"$model\"|" "$here/mnist-visual.toml" > "$out/job.toml"
for seed in 0 1 2; do
    fedbbpt simulate "$out/job.toml" --data "$data" --seed "$seed" --out "$out/visual-$seed" --json
done
