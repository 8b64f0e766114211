"""A word-level LSTM language model with AR and TAR, on the help texts of Python."""
