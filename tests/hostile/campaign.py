"""Try hostile inputs at every surface, within a time budget; totals go on from run to run.

    python tests/hostile [--surface NAME] [--minutes N] [--short]

What fails is written to found/SURFACE/ and replayed by the tests ever after.
"""

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import totals
from surface import Surface
from worker import findings

NAMES = (
    "checkpoints", "constraints", "corpora", "headers", "packages", "recipes", "requests",
    "sessions", "settings", "states", "templates", "tokenizers", "wire",
)  # fmt: skip
SHORT_S = 120.0  # for all surfaces of a short campaign
SHM = Path("/dev/shm")


def module_of(name):
    return importlib.import_module(f"surfaces.{name}")


def lacking(name):
    """A package that the surface needs and that is not installed, None if all are."""
    try:
        module = module_of(name)
    except ModuleNotFoundError as error:
        return error.name
    return next((need for need in module.NEEDS if importlib.util.find_spec(need) is None), None)


def targets():
    return {name: module_of(name).TARGET for name in NAMES}


@contextmanager
def prepared(name):
    """The surface, with its files in memory while it is used."""
    where = SHM if SHM.is_dir() else None
    with tempfile.TemporaryDirectory(prefix=f"hostile-{name}-", dir=where) as folder:
        module = module_of(name)
        yield Surface(name, module, module.prepare(Path(folder)))


def campaign(name, budget_s, counted, batch=None):
    """Try batches for a time, one at least; returns a row of the report and the findings."""
    entry = counted["surfaces"].get(name, {"inputs": 0})
    done, all_found = 0, []
    with prepared(name) as surface:
        size, begun_s = batch or surface.module.BATCH, time.monotonic()
        while not done or time.monotonic() - begun_s < budget_s:
            inputs = surface.inputs(counted["seed"], entry["inputs"] + done, size)
            found = findings(surface, inputs)
            for finding in found:
                report(name, finding)
            done, all_found = done + size, all_found + found
    totals.add(counted, name, done, len(all_found))
    return row(surface, done, time.monotonic() - begun_s, counted), all_found


def report(name, finding):
    """Keep the input and say what it did."""
    path = totals.keep(name, finding.input)
    print(f"{name}: {path.name}: {finding.what}", file=sys.stderr)


def row(surface, done, seconds, counted):
    """Name, inputs now, rate, total, time left to the target at this rate."""
    rate = done / seconds
    total = counted["surfaces"][surface.name]["inputs"]
    left_h = max(surface.module.TARGET - total, 0) / rate / 3600
    return f"| {surface.name} | {done:,} | {rate:,.0f} | {total:,} | {left_h:,.1f} |"


def flags():
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--surface", choices=NAMES, help="default: each in turn")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all surfaces together")
    parser.add_argument("--short", action="store_true", help="as CI runs it; counts nothing")
    parser.add_argument("--page", action="store_true", help="write the table of docs/hostile.md")
    return parser.parse_args()


def main():
    """Run what was asked for; the exit code is 1 if anything was found."""
    wanted, counted = flags(), totals.read()
    if wanted.page:
        text = totals.table(counted, targets())
        totals.PAGE.write_text(totals.written_into(totals.PAGE.read_text(), text))
        return 0
    names = [wanted.surface] if wanted.surface else NAMES
    budget_s = (SHORT_S if wanted.short else 60 * wanted.minutes) / len(names)
    failed = False
    print("| surface | inputs | each second | in total | hours left |\n|---|---:|---:|---:|---:|")
    for name in names:
        if need := lacking(name):
            print(f"| {name} | none: {need} is not installed | | | |")
            continue
        batch = max(module_of(name).BATCH // 10, 20) if wanted.short else None
        line, found = campaign(name, budget_s, counted, batch)
        print(line, flush=True)
        failed |= bool(found)
        if not wanted.short:
            totals.write(counted)
    return int(failed)
