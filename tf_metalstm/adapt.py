"""Your own pictures in one command: python -m tf_metalstm.adapt --model=... --support=...

This is the client export/adapt.py, which needs no package, by a name of the package. It adapts,
checks a support set, and predicts. The model may be one of the trained ones by its name.
"""

from __future__ import annotations

import sys

from tf_metalstm import shipped

if __name__ == "__main__":
    shipped.run_client("adapt", "python -m tf_metalstm.adapt", sys.argv[1:])
