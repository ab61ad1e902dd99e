"""How a learned optimizer stands beside others, each at its best rate."""
