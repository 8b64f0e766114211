"""Two circles: the experiment that made activity regularization known.

Thirty noisy points on two circles train a network of 500 hidden units; seventy test it.
An L1 penalty on the hidden layer is placed before or after the ReLU, and summed or
averaged over the batch. `train_torch.py`, `train_keras.py` and `train_jax.py` are the
study in each framework and the place to start reading; the JSON files beside them are the
regularization that all three share. `arspec demo` runs them together.
"""
