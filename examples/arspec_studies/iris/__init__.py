"""Iris: a deep network for 150 flowers, with and without an L1 penalty on its first layer."""
