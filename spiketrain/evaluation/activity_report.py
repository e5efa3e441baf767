"""The pictures of an activity report, and its HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spiketrain.evaluation import html, pictures
from spiketrain.evaluation.recording import Recording
from spiketrain.runtime.durable_files import replace_file


def draw(
    report: dict[str, Any], recording: Recording, positions: tuple[Any, Any] | None
) -> dict[str, bytes]:
    """PNGs by name."""
    found: dict[str, bytes] = {}
    if recording:
        found["raster"] = pictures.raster(recording)
        found["firing-rates"] = pictures.rates(recording)
        found["counts"] = pictures.count_histogram(recording)
    if positions is not None:
        found["positions"] = pictures.by_position(*positions)
    if "by_context" in report:
        found["context"] = pictures.by_context(report["by_context"])
    return found


def write_pngs(pngs: dict[str, bytes], folder: Path) -> None:
    """One file for each picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in pngs.items():
        replace_file(folder / f"{name}.png", png)


def write_html(report: dict[str, Any], pngs: dict[str, bytes], path: Path) -> None:
    """The page: what was read, counters, units, energy, pictures."""
    names = ("model", "fingerprint", "data", "data_hash", "tokenizer_hash", "backend", "tokens")
    parts = [html.table([{"what": name, "value": report[name]} for name in names])]
    parts += [html.heading("Layers"), html.table([*report["layers"], report["total"]])]
    parts.append(
        html.note("Sums over all tokens; operations and bytes as the runtime counts them.")
    )
    units = [
        {"place": name, **{key: row[key] for key in ("units", "firing_rate", "dead", "saturated",
         "negative_share", "mean_count")}} for name, row in report["units"].items()
    ]  # fmt: skip
    trains = [
        {"place": name, **one} for name, row in report["units"].items() for one in row["expansions"]
    ]
    if units:
        parts += [html.heading("Units"), html.table(units), html.table(trains)]
        parts.append(
            html.note(f"In {report['recorded_tokens']} recorded tokens. Expansions: counts written "
                      "as trains of simple spikes; rates are of a unit and time step.")
        )  # fmt: skip
    found = report.get("energy_per_token")
    if found is not None:
        rows = [
            {"estimate": key.removesuffix("_pj").replace("_", " ") + ", pJ a token",
             "event-driven": found["event_driven"][key],
             "dense, same bits": found["dense_same_bits"][key]}
            for key in found["event_driven"]
        ]  # fmt: skip
        parts += [html.heading("Energy"), html.table(rows)]
        parts.append(html.note(f"MAC: {found['mac_formula']} pJ; {found['source']}. Estimates."))
    measured = report["joules_measured"]
    text = report["joules_note"] if measured is None else f"{measured} J, {report['joules_note']}"
    parts.append(html.note(f"Measured: {text}; {report['tokens_per_s']:,.0f} tokens/s."))
    parts += [html.picture(png, name) for name, png in pngs.items()]
    replace_file(path, html.page(f"Activity of {report['model']}", parts).encode())
