"""Tables of results: what they are to hold, what has been measured, and how they are printed."""
