"""Where images come from: one file a source, all behind the interface of `base.py`."""
