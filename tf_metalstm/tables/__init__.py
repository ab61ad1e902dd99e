"""Tables of results: their cells, the measured numbers, and their text."""
