#!/bin/sh
# A package's report in one call: tables, page and pictures, as docs/evaluation.md shows them.
#
#   sh docs/reports/report.sh PACKAGE TEXT FOLDER        PACKAGE may be `bundled`
#
# activity.txt, report.html and four pictures from the first 16,000 tokens of the text, bench.txt
# and context.png from decoding on one thread after up to 262,144 tokens of context. Times need an
# idle machine; minutes for models of a few million parameters.
set -eu
model=$1 data=$2 folder=$3
mkdir -p "$folder"
spiketrain eval activity "$model" --data "$data" --limit 16000 --record 1000 \
    --html "$folder/report.html" --png "$folder" > "$folder/activity.txt"
spiketrain bench "$model" --contexts 0,4096,16384,65536,262144 --prefills 128,512,2048,8192 \
    --batches 1,4,16,64 --rounds 5 --png "$folder/context.png" > "$folder/bench.txt"
cat "$folder/activity.txt" "$folder/bench.txt"
