"""A sparse autoencoder on the activations of a transformer built offline, with random weights."""
