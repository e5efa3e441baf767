"""python tests/hostile: see campaign.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import main

if __name__ == "__main__":
    sys.exit(main())
