#!/usr/bin/env bash
# Runs FedSP without and with the server's own shard.
# Usage: experiments/fed_sp.sh MODEL_FOLDER FOLDER_WITH_TRAIN_DEV_TEST OUT
set -euo pipefail
here=$(dirname "$0") model=$1 data=$2 out=$3
mkdir -p "$out"
sed "s|^model = .*|model = \"$model\"|" "$here/babyllama-fed-sp.toml" > "$out/alone.toml"
sed "s|^server_share = .*|server_share = 0.25|; s|^server_shard = .*|server_shard = true|" "$out/alone.toml" > "$out/shard.toml"
for job in alone shard; do
    fedbbpt simulate "$out/$job.toml" --data "$data" --out "$out/$job" --json
    python "$here/fed_sp_held_out.py" "$out/$job.toml" "$out/$job" --data "$data" --auxiliary
done
