"""Look up known faults of what is installed here, with pip-audit.

    python tools/audit.py

The exit code is 1 if there are any. Where pip-audit is not installed, or no index answers, the
audit says so and exits by 0: nothing was looked at, and nothing is claimed.
"""

import importlib.util
import json
import subprocess
import sys

TIMEOUT_S = 300
COMMAND = ["--format", "json", "--skip-editable", "--progress-spinner", "off"]


def audit() -> int:
    """Run pip-audit and say what it found."""
    if importlib.util.find_spec("pip_audit") is None:
        print("not audited: pip-audit is not installed (pip install pip-audit)")
        return 0
    command = [sys.executable, "-m", "pip_audit", *COMMAND]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        looked_at = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"not audited: no answer within {TIMEOUT_S} s")
        return 0
    except (ValueError, KeyError):
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        print(f"not audited: pip-audit failed ({reason[0][:200]})")
        return 0
    return said(looked_at)


def said(looked_at: list[dict]) -> int:
    """Print a table of the faults; 1 if there are any."""
    faults = [(entry, fault) for entry in looked_at for fault in entry.get("vulns", ())]
    skipped = sum("skip_reason" in entry for entry in looked_at)
    if skipped == len(looked_at):
        reason = next((entry["skip_reason"] for entry in looked_at), "nothing is installed")
        print(f"not audited: every package was skipped ({reason[:200]})")
        return 0
    print(f"{len(looked_at) - skipped} packages looked at, {skipped} skipped, {len(faults)} faults")
    if faults:
        print("\n| package | fault | mended in |\n|---|---|---|")
    for entry, fault in faults:
        mended = ", ".join(fault.get("fix_versions", ())) or "-"
        print(f"| {entry['name']} {entry['version']} | {fault['id']} | {mended} |")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(audit())
