"""An LSTM encoder–decoder that reverses sequences, with a penalty on the states of the encoder."""
