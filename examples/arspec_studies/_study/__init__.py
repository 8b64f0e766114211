"""What all studies share: runs and their store, processes, training of many seeds at once, numbers and pages.

A study is a folder beside this one. Its `study.py` describes it, its `data.py` makes the
data and measures trained weights in NumPy, its JSON files are the regularization, and its
`train_torch.py`, `train_jax.py` and `train_keras.py` are the place to start reading.
"""
