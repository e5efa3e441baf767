#!/bin/sh
# Everything behind the bundled model, one command, resumable: train the LSTM, the EGRU of equal
# parameters that it teaches, the curve of bits per byte over activity; convert, measure, report.
#
#   SPIKETRAIN_DATA=folder-with-stories sh training/recipes/stories.sh [RUNS] [PACKAGE]
#
# About six hours on one core; a part that has its result.json is not made again.
set -eu
here=$(dirname "$0")
runs=${1:-runs}
package=${2:-spiketrain/models/stories-egru}
test_text="${SPIKETRAIN_DATA:?set SPIKETRAIN_DATA to the folder that holds stories/}/stories/test.txt.xz"

train() { # run, recipe, overrides...
    run=$1 recipe=$2
    shift 2
    [ -f "$runs/$run/result.json" ] && return
    for field in "$@"; do set -- "$@" --set "$field"; shift; done
    spiketrain train "$here/$recipe" --out "$runs/$run" --resume "$@"
}

# The dense LSTM, best of three learning rates.
train lstm-5e-3 stories-lstm.toml
tokenizer="data.tokenizer=$(cd "$runs" && pwd)/lstm-5e-3/tokenizer.model"
for rate in 2.5e-3 1e-2; do
    train "lstm-$rate" stories-lstm.toml "$tokenizer" "optimizer.learning_rate=$rate"
done

# The EGRU, alone and with the best LSTM as its teacher.
train alone stories-egru.toml "$tokenizer"
teacher="distil.teacher=$runs/lstm-5e-3"
train stories-egru stories-egru.toml "$tokenizer" "$teacher" distil.weight=0.5

# The price of an event is the dial: short runs on from the same weights, one for each setting.
for penalty in 0 0.002 0.006 0.02; do
    train "penalty-$penalty" stories-egru.toml "$tokenizer" "$teacher" distil.weight=0.5 \
        "activity.penalty=$penalty" \
        activity.target_rate=0 activity.floor_rate=0 activity.ramp=0.1 \
        "run.start_from=$runs/stories-egru" run.tokens=500000 \
        optimizer.learning_rate=1e-3 optimizer.warmup_tokens=20000 'data.test=""'
done

spiketrain convert "$runs/stories-egru" "$runs/float32" --force
spiketrain convert "$runs/stories-egru" "$runs/int8" --weights int8 --fold-projection --force
for format in float32 int8; do
    spiketrain eval ppl "$runs/$format" --data "$test_text" --json > "$runs/$format.json"
done
python -m spiketrain.training.report "$runs" "$runs/report"
spiketrain convert "$runs/stories-egru" "$package" --weights int8 --fold-projection --force \
    --licence "text CC BY 4.0 and public domain, see attribution.tsv; weights Apache-2.0" \
    --file "$runs/report/report.json" --file "$runs/report/activity.png" \
    --file "$runs/report/README.md" --file "$runs/stories-egru/curves.png" \
    --file "$here/generation_config.json" \
    --file "$SPIKETRAIN_DATA/stories/attribution.tsv"
