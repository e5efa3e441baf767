"""Reports a set of finished runs: report.json, a model card and the activity curve.

`python -m spiketrain.training.report RUNS TARGET` reads the folder that `recipes/stories.sh` fills.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import safetensors

from spiketrain.runtime.durable_files import replace_file
from spiketrain.runtime.json_file import read_json_file
from spiketrain.training.plots import plot_activity

CARD = """# stories-egru

A spiking language model: {layers} of {sizes} units, {parameters:,} parameters, trained on
public-domain and CC BY fairy tales and children's classics (`attribution.tsv`).

| measured on `stories/test`, carry protocol | bits per byte | zero outputs |
|---|---|---|
| this package (int8 weights, 16-bit events) | **{int8:.4f}** | {zeros} |
| the same model in float32 | {float32:.4f} | {float32_zeros} |
| the same recipe without a teacher, float32 | {alone:.4f} | {alone_zeros} |
| dense LSTM of {lstm_parameters:,} parameters, float32 | {lstm:.4f} | 0 % |

{verdict}  It had a teacher, which the LSTM
had not: {share:.0%} of its loss is how far its predictions are from those of that LSTM on the same
text (knowledge distillation).  Without one it needs {alone_gap}.

All of them read the same {tokens:,} tokens once, in the same loop, from an embedding and a
projection of the same size before the tied head.  Learning rates of the LSTM that were run on all
tokens: {rates}.
The EGRU's recipe took more trials than the LSTM's, all of them judged on `train` and `valid`.
Training took {egru_minutes:.0f} minutes for the EGRU with its teacher beside it and
{lstm_minutes:.0f} for the LSTM, each on one core, beside other work.  The projection is folded
into the head of this package, so that the head too reads events only: {stored:,} numbers are
stored for the {parameters:,} trained.

![bits per byte over activity](activity.png)

Each point of the curve goes on from the trained EGRU for {curve_tokens:,} tokens at another price
of an event, without a floor under firing rates.  Everything is in `report.json`; the recipe is
`{command}`.

Limits: a small model of old stories.  Many of its sentences read well, others are not grammatical,
and few make sense; it repeats the views of its sources' time.
"""
COMMAND = "sh training/recipes/stories.sh"


def write_report(runs: Path, target: Path) -> dict[str, Any]:
    """Collect the results under `runs` into report.json, README.md and activity.png in `target`.

    Raises FileNotFoundError naming the first result that is not there.
    """
    report = collect(runs)
    target.mkdir(parents=True, exist_ok=True)
    plot_activity(report, target / "activity.png")
    replace_file(target / "README.md", card(report).encode())
    replace_file(target / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    return report


def collect(runs: Path) -> dict[str, Any]:
    """All numbers of the report, as the runs and the evaluations wrote them."""
    lstms = _series(runs, "lstm-", "learning_rate")
    return {
        "command": COMMAND,
        "egru": _read(runs / "stories-egru" / "result.json"),
        "egru_config": _settings(runs / "stories-egru" / "config.json"),
        "egru_alone": _read(runs / "alone" / "result.json"),
        "lstm": min(lstms, key=lambda run: run["valid_bits_per_byte"]),
        "lstm_learning_rates": lstms,
        "activity_curve": _series(runs, "penalty-", "penalty"),
        "stored_parameters": _stored(runs / "int8"),
        "package": {name: _evaluation(runs / f"{name}.json") for name in ("int8", "float32")},
    }


def card(report: dict[str, Any]) -> str:
    """The model card in Markdown."""
    int8, float32 = report["package"]["int8"], report["package"]["float32"]
    egru, lstm, alone = report["egru"], report["lstm"], report["egru_alone"]
    beside = lstm["test_bits_per_byte"]
    sizes = report["egru_config"]["model"]["hidden_sizes"]
    return CARD.format(
        layers="one EGRU layer" if len(sizes) == 1 else f"{len(sizes)} EGRU layers",
        sizes=", ".join(map(str, sizes)),
        parameters=egru["parameters"],
        stored=report["stored_parameters"],
        tokens=egru["tokens"],
        int8=int8["bits_per_byte"],
        float32=float32["bits_per_byte"],
        zeros=_zeros(int8["firing_rates"], sizes),
        float32_zeros=_zeros(float32["firing_rates"], sizes),
        alone=alone["test_bits_per_byte"],
        alone_zeros=_zeros(alone["test_firing_rates"], sizes),
        alone_gap=_gap(alone["test_bits_per_byte"] - beside),
        share=report["egru_config"]["distil"]["weight"],
        lstm=beside,
        lstm_parameters=lstm["parameters"],
        verdict=f"The EGRU needs {_gap(int8['bits_per_byte'] - beside)} than the LSTM.",
        rates=_by_rate(report["lstm_learning_rates"]),
        egru_minutes=egru["seconds"] / 60,
        lstm_minutes=lstm["seconds"] / 60,
        curve_tokens=report["activity_curve"][0]["tokens"],
        command=report["command"],
    )


def _gap(bits: float) -> str:
    return f"{abs(bits):.4f} bits per byte {'more' if bits > 0 else 'less'}"


def _stored(package: Path) -> int:
    """Numbers in a package's tensors, scales among them."""
    with safetensors.safe_open(package / "model.safetensors", framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118


def _zeros(rates: list[float], sizes: list[int]) -> str:
    """Share of zero outputs over all units; of several layers, each one's and their mean."""
    mean = sum(rate * size for rate, size in zip(rates, sizes, strict=True)) / sum(sizes)
    if len(rates) == 1:
        return f"{100 * (1 - mean):.1f} %"
    layers = ", ".join(f"layer {i + 1}: {100 * (1 - r):.1f} %" for i, r in enumerate(rates))
    even = 1 - sum(rates) / len(rates)
    return f"{100 * (1 - mean):.1f} % of all units ({layers}; their mean {100 * even:.1f} %)"


def _by_rate(results: list[dict[str, Any]]) -> str:
    """Bits per byte on valid and test of each learning rate, with the run's Adam betas."""
    return ", ".join(
        "{:g} with betas {:g} and {:g} ({:.4f} on `valid`, {:.4f} on `test`)".format(
            result["learning_rate"],
            *result["settings"]["optimizer"]["betas"],
            result["valid_bits_per_byte"],
            result["test_bits_per_byte"],
        )
        for result in results
    )


def _series(runs: Path, prefix: str, field: str) -> list[dict[str, Any]]:
    """Results of runs named prefix + number, in the order of the number."""
    results = []
    for folder in runs.glob(prefix + "*"):
        if re.fullmatch(r"[0-9.e+-]+", folder.name.removeprefix(prefix)):
            value = float(folder.name.removeprefix(prefix))
            settings = _settings(folder / "config.json")
            results.append({field: value, **_read(folder / "result.json"), "settings": settings})
    if not results:
        raise FileNotFoundError(f"no runs {prefix}* under {runs}")
    return sorted(results, key=lambda result: result[field])


def _settings(path: Path) -> dict[str, Any]:
    """A run's recipe without the places of its files."""
    recipe = _read(path)
    recipe.pop("data", None)
    recipe.get("run", {}).pop("start_from", None)
    if recipe.get("distil"):
        recipe["distil"]["teacher"] = Path(recipe["distil"]["teacher"]).name
    return recipe


def _evaluation(path: Path) -> dict[str, Any]:
    """What `eval ppl --json` printed, files by name alone."""
    report = _read(path)
    return report | {key: Path(report[key]).name for key in ("model", "data") if key in report}


def _read(path: Path) -> Any:
    return read_json_file(path)


def main() -> None:
    """Parse the two folders and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("target", type=Path)
    flags = parser.parse_args()
    write_report(flags.runs, flags.target)


if __name__ == "__main__":
    main()
