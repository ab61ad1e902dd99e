"""From images on disk to episodes: the only place of the package that touches raw data."""
