"""Make tests/data/package-v1: run once, committed, and never run again for format version 1.

What it made must load, and give the recorded bits, in every later version. A new format version
gets a directory of its own beside it.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

import tiny  # noqa: E402

from spiketrain import runtime  # noqa: E402

TEXT = "Once upon a time there was a fox, and"
MORE = " the fox said"


def main() -> None:
    """Write the package, a state after TEXT, and the logits along MORE as hexadecimal floats."""
    package = tiny.tiny_egru_package(HERE / "package-v1", seed=1)
    model = runtime.load_model(package)
    state = model.new_state()
    model.forward(state, model.tokenizer.encode(TEXT))
    (HERE / "package-v1-state.bin").write_bytes(state.to_bytes())
    tokens = model.tokenizer.encode(MORE)
    logits = model.forward(state, tokens)
    recorded = {
        "text": TEXT,
        "more": MORE,
        "fingerprint": model.fingerprint,
        "logits": {
            str(at): [x.hex() for x in map(float, logits[at])] for at in (0, len(tokens) - 1)
        },
        "greedy": [int(row.argmax()) for row in logits],
    }
    (HERE / "package-v1-results.json").write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
