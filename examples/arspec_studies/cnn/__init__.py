"""A small convolutional network on digits, with a penalty on the activations of its convolutions."""
