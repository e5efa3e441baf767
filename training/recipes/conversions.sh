#!/bin/sh
# Conversions from artificial networks, measured beside the same spiking model trained from nothing
# for the same time: GRU -> EGRU and RWKV-4 -> SpikeGPT.  One command, resumable.
#
#   SPIKETRAIN_DATA=folder-with-stories sh training/recipes/conversions.sh [RUNS]
#
# About forty minutes on one core; a part that has its result is not made again.  The reports are
# RUNS/egru/report.json and RUNS/spikegpt/report.json, the runs from nothing have a result.json.
set -eu
here=$(dirname "$0")
runs=${1:-runs/conversions}
stories="${SPIKETRAIN_DATA:?set SPIKETRAIN_DATA to the folder that holds stories/}/stories"
mkdir -p "$runs"

train() { # run, recipe, overrides...
    run=$1 recipe=$2
    shift 2
    [ -f "$runs/$run/result.json" ] && return
    for field in "$@"; do set -- "$@" --set "$field"; shift; done
    spiketrain train "$here/$recipe" --out "$runs/$run" --resume "$@"
}

convert() { # teacher's run, package, recipe, sparsity
    [ -f "$runs/$2/report.json" ] && return
    spiketrain convert "$runs/$1" "$runs/$2" --recipe "$3" --fine-tune "$here/$3.toml" \
        --calib "$runs/calibration.txt" --measure "$stories/valid.txt.xz" --target-sparsity "$4"
}

xz -dc "$stories/train.txt.xz" | head -n 500 > "$runs/calibration.txt"
train gru stories-gru.toml
tokenizer="data.tokenizer=$(cd "$runs" && pwd)/gru/tokenizer.model"
convert gru egru gru-to-egru 0.82
train egru-from-nothing stories-egru-scratch.toml "$tokenizer"

short="optimizer.warmup_tokens=50_000"
train rwkv stories-spikegpt.toml "$tokenizer" "$short" model.neuron_position=none run.tokens=800_000 'data.test=""'
convert rwkv spikegpt rwkv-to-spikegpt 0.82
train spikegpt-from-nothing stories-spikegpt.toml "$tokenizer" "$short" \
    model.binary_embedding=false run.tokens=1_200_000 'data.test=""'
