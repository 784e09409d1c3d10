#!/usr/bin/env bash
# Answers FedOne's question on TREC: is one client a round enough?
# Runs 1, 10 and all 100 clients a round with equal queries.
# Usage: experiments/fedone.sh FOLDER_WITH_TRAIN_DEV_TEST OUT
set -euo pipefail
here=$(dirname "$0") data=$1 out=$2
for seed in 0 1 2; do
    for size in 1 10 100; do
        fedbbpt simulate "$here/fedone-$size.toml" --data "$data" --seed "$seed" --out "$out/$size-$seed"
    done
done
python "$here/fedone.py" "$out"
