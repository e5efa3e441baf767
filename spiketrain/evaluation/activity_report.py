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
    energy: dict[str, bytes] = {}
    if recording:
        energy["raster"] = pictures.raster(recording)
        energy["firing-rates"] = pictures.rates(recording)
        energy["counts"] = pictures.count_histogram(recording)
    if positions is not None:
        energy["positions"] = pictures.by_position(*positions)
    if "by_context" in report:
        energy["context"] = pictures.by_context(report["by_context"])
    return energy


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
    energy = report.get("energy_per_token")
    if energy is not None:
        rows = [
            {"estimate": key.removesuffix("_pj").replace("_", " ") + ", pJ a token",
             "event-driven": energy["event_driven"][key],
             "dense, same bits": energy["dense_same_bits"][key]}
            for key in energy["event_driven"]
        ]  # fmt: skip
        parts += [html.heading("Energy"), html.table(rows)]
        parts.append(html.note(f"MAC: {energy['mac_formula']} pJ; {energy['source']}. Estimates."))
    measured = report["joules_measured"]
    text = report["joules_note"] if measured is None else f"{measured} J, {report['joules_note']}"
    parts.append(html.note(f"Measured: {text}; {report['tokens_per_s']:,.0f} tokens/s."))
    parts += [html.picture(png, name) for name, png in pngs.items()]
    replace_file(path, html.page(f"Activity of {report['model']}", parts).encode())
