"""Steps of PyTorch in this process, for growth.py: prints how much it grew."""

from __future__ import annotations

import json
import sys
import time

from bench.peers.torch_train import Training


def main() -> None:
    """Train the case of the command line as the benchmark's peer does, eagerly."""
    case = json.loads(sys.argv[1])
    # Its first two steps are made where it is; what it grew by is counted from the model on.
    training = Training("eager", case, time.time())
    training.run(case["steps"] - 2)
    sys.stdout.write(json.dumps({"grown_bytes": training.facts()["grown_bytes"]}) + "\n")


if __name__ == "__main__":
    main()
