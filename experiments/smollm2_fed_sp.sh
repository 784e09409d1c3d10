#!/usr/bin/env bash
# Runs FedSP on SmolLM2-135M-Instruct with three seeds, without and with turns of the owner, and prints the figures.
# Usage: [TASKS="trec agnews sst2"] experiments/smollm2_fed_sp.sh FOLDER_WITH_A_FOLDER_FOR_EACH_TASK OUT [TEST_ROWS]
set -euo pipefail
here=$(dirname "$0") data=$1 out=$2 rows=${3:-200}
mkdir -p "$out"
declare -A template=(
    [trec]='<|endoftext|>Question: {text}\\nThe answer is a {mask}'
    [agnews]='<|endoftext|>News: {text}\\nTopic: {mask}'
    [sst2]='<|endoftext|>Review: {text}\\nSentiment: {mask}'
)
declare -A labels=(
    [trec]='["abbreviation", "description", "entity", "human", "location", "number"]'
    [agnews]='["World", "Sports", "Business", "Sci/Tech"]'
    [sst2]='["negative", "positive"]'
)
declare -A classes=(
    [trec]='["abbreviation", "description", "thing", "person", "place", "number"]'
    [agnews]='["World", "Sports", "Business", "Technology"]'
    [sst2]='["negative", "positive"]'
)
for task in ${TASKS:-trec agnews}; do
    sed "s%^template = .*%template = \"${template[$task]}\"%; s%^labels = .*%labels = ${labels[$task]}%
         s%^classes = .*%classes = ${classes[$task]}%; s%^source = .*%source = \"$data/$task\"%" \
        "$here/smollm2-fed-sp.toml" > "$out/$task-off.toml"
    sed "s%^server_shard = .*%server_shard = true%" "$out/$task-off.toml" > "$out/$task-on.toml"
    python "$here/fed_sp_runs.py" "$out" "$out/$task-off.toml" "$out/$task-on.toml"
    python "$here/fed_sp_held_out.py" "$out/$task-off.toml" "$out/$task"-{off,on}-{0,1,2} --rows "$rows"
done
