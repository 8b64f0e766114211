"""arspec's own adapters, seen through the contract of the suite: one file per framework."""
