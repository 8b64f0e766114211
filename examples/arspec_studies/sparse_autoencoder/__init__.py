"""Sparse autoencoders on scikit-learn's digits: L1, KL and L0, over- and under-complete."""
