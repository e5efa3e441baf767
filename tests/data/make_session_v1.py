"""How session-v1.bin was made: an exported session of package-v1 that has read a text, seed 5.

It must load in every later version: never made anew, another format gets a file of its own.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from make_package_v1 import TEXT  # noqa: E402

from spiketrain import runtime  # noqa: E402
from spiketrain.serving.engine.starting_point import Start  # noqa: E402
from spiketrain.serving.sessions.blob import to_blob  # noqa: E402


def main() -> None:
    """Write the session."""
    model = runtime.load_model(HERE / "package-v1")
    state, tokens = model.new_state(), model.tokenizer.encode(TEXT)
    logits = model.forward(state, tokens, last_only=True)
    blob = to_blob(Start(state, logits, tuple(tokens)), 5, model.fingerprint)
    (HERE / "session-v1.bin").write_bytes(blob)


if __name__ == "__main__":
    main()
