"""Sources of images: one file for each source; all have the interface of `base.py`."""
