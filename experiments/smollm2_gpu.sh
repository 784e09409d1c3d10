#!/usr/bin/env bash
# Compares zero-shot, offsets, the readout, fed-cma with a readout, and fed-bpt on SmolLM2-135M-Instruct: 64 examples of
# each class at ten clients, three seeds, about 60,000 queries for each search. Written for a GPU.
# Usage: [DEVICE=cuda] [SMALL=1 | TINY=1] [TASKS="trec sst2 agnews"] [SEEDS=0,1,2]
#        experiments/smollm2_gpu.sh FOLDER_WITH_A_FOLDER_FOR_EACH_TASK OUT
# SMALL=1 has budgets for a CPU, thousands of queries for each search. TINY=1 goes through all steps with few queries.
# An interrupted run continues.
set -euo pipefail
here=$(dirname "$0") data=$1 out=$2 device=${DEVICE:-cuda}
seeds=${SEEDS:-0,1,2} shots=64 test=1000 population=20 batch=8 fit=10 every=12 cma_rounds=86 bpt_rounds=18
if [ -n "${SMALL:-}" ]; then
    test=500 population=10 batch=4 fit=8 every=6 cma_rounds=30 bpt_rounds=3
fi
if [ -n "${TINY:-}" ]; then
    seeds=0 shots=5 test=12 population=4 batch=1 fit=2 every=1 cma_rounds=7 bpt_rounds=1
fi
mkdir -p "$out"
for task in ${TASKS:-trec sst2 agnews}; do
    sed "s%^model = .*%&\ndevice = \"$device\"%" "$here/smollm2/$task.toml" > "$out/$task-fed-readout.toml"
    python "$here/smollm2/readout.py" "$out/$task-fed-readout.toml" "$data/$task" "$out" \
        --shots "$shots" --seeds "$seeds" --test "$test" | tee "$out/$task-readout.md"

    prompt="[task.prompt]\ntokens = 8\ndim = 500\nscale = 2.0\n\n[data]"
    shares="shots_per_class = $shots\ndev_shots_per_class = $shots"
    readout="[method.readout]\nrounds = $fit\nevery = $every"
    limits="batch_examples = $batch\ndev_every = 5"
    sed "s%^rounds = .*%rounds = $cma_rounds%; s%^\[data\]%$prompt\n$shares%
         s%^name = \"fed-readout\"%name = \"fed-cma\"\npopulation = $population\n$limits\n\n$readout%" \
        "$out/$task-fed-readout.toml" > "$out/$task-fed-cma.toml"
    sed "s%^rounds = .*%rounds = $bpt_rounds%; s%^\[data\]%$prompt\n$shares%; /^columns = /d
         s%^name = \"fed-readout\"%name = \"fed-bpt\"\nperturb_rate = 0.0\n$limits%" \
        "$out/$task-fed-readout.toml" > "$out/$task-fed-bpt.toml"
    python "$here/smollm2/searches.py" "$data/$task" "$out" "$out/$task-fed-cma.toml" "$out/$task-fed-bpt.toml" \
        --seeds "$seeds" --test "$test" | tee "$out/$task-searches.md"
done
