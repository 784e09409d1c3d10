#!/usr/bin/env bash
# Runs three methods with three seeds on TREC.
# Usage: experiments/trec.sh FOLDER_WITH_TRAIN_DEV_TEST OUT
set -euo pipefail
here=$(dirname "$0") data=$1 out=$2
for seed in 0 1 2; do
    for method in fed-cma fed-bpt fed-bbpt; do
        fedbbpt run "$here/trec-$method.toml" --data "$data" --seed "$seed" --out "$out/$method-$seed"
    done
done
python "$here/table.py" "$out"/*/summary.json
