"""Your own pictures in one command: python -m tf_metalstm.adapt --model=... --support=...

It runs the client export/adapt.py, which also works without the package. The client adapts, checks
a support set, and predicts. The model may be the folder of an export or the name of a trained
model.
"""

from __future__ import annotations

import sys

from tf_metalstm import shipped

if __name__ == "__main__":
    shipped.run_client("adapt", "python -m tf_metalstm.adapt", sys.argv[1:])
