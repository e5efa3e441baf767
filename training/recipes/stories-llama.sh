#!/bin/sh
# A Llama becomes a spiking model: the teacher, the teacher trained on for as many tokens as its
# students (the control), a hybrid and an all-linear student in int4, and short runs that compare
# first decays.  One command, resumable.
#
#   SPIKETRAIN_DATA=folder-with-stories sh training/recipes/stories-llama.sh [RUNS]
#
# About two hours on one core; a part that has its result is not made again.  Reports are
# RUNS/*/report.json, the control's figures RUNS/control/result.json.
set -eu
here=$(dirname "$0")
runs=${1:-runs/stories-llama}
stories="${SPIKETRAIN_DATA:?set SPIKETRAIN_DATA to the folder that holds stories/}/stories"
threads=${THREADS:-1}
mkdir -p "$runs"
runs=$(cd "$runs" && pwd)

train() { # run, recipe, overrides...
    run=$1 recipe=$2
    shift 2
    [ -f "$runs/$run/result.json" ] && return
    for field in "$@"; do set -- "$@" --set "$field"; shift; done
    spiketrain train "$here/$recipe" --out "$runs/$run" --resume --set "run.threads=$threads" "$@"
}

convert() { # package, variant, weights, measured on, overrides...
    package=$1 variant=$2 weights=$3 text=$4
    shift 4
    [ -f "$runs/$package/report.json" ] && return
    for field in "$@"; do set -- "$@" --set "$field"; shift; done
    spiketrain convert "$runs/teacher" "$runs/$package" --recipe transformer-to-spiking \
        --variant "$variant" --weights "$weights" --fine-tune "$here/stories-llama-spiking.toml" \
        --calib "$runs/calibration.txt" --measure "$text" \
        --set "run.threads=$threads" "$@"
}

xz -dc "$stories/train.txt.xz" | head -n 500 > "$runs/calibration.txt"
xz -dc "$stories/valid.txt.xz" | head -n 1500 > "$runs/measure.txt"
train teacher stories-llama.toml
convert hybrid hybrid-spread int4 "$stories/test.txt.xz"
convert linear linear-spread int4 "$stories/test.txt.xz"
train control stories-llama-control.toml "run.start_from=$runs/teacher" \
    "data.tokenizer=$runs/teacher/tokenizer.model"
for variant in hybrid hybrid-spread hybrid-published linear linear-spread linear-published; do
    convert "short-$variant" "$variant" float32 "$runs/measure.txt" \
        run.tokens=100_000 optimizer.warmup_tokens=10_000 'data.test=""'
done
