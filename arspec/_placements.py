"""Where in a layer a penalty applies, and what a rule assumes there.

`arspec.layers` defines each placement by a layer in NumPy; the texts here are its summary.
"""

from arspec._axes import MeanOver

ACTIVATIONS = {
    "input": "what the layer is given",
    "pre_activation": "what the layer's affine map gives, before its activation function",
    "output": "what the layer gives, after its activation function",
    "hidden_state": "h of a recurrent layer after every step; carried over padded steps",
    "cell_state": "c of an LSTM after every step; carried over padded steps",
    "input_gate": "i of an LSTM, after its sigmoid",
    "forget_gate": "f of an LSTM, after its sigmoid",
    "cell_gate": "the new content of an LSTM (g) or a GRU (n), after its tanh",
    "output_gate": "o of an LSTM, after its sigmoid",
    "reset_gate": "r of a GRU, after its sigmoid",
    "update_gate": "z of a GRU, after its sigmoid: the share of the old state that is kept",
}
PARAMETERS = {
    "kernel": "the weights that multiply the input",
    "recurrent_kernel": "the weights that multiply the previous state",
    "bias": "the weights that are added",
    "depthwise_kernel": "the weights of a separable convolution that act on each channel alone",
    "pointwise_kernel": "the weights of a separable convolution that mix the channels",
    "embeddings": "the table of an embedding, one row per token",
    "scale": "the weights that multiply what a normalization gives (gamma)",
    "shift": "the weights that a normalization adds (beta)",
    "query_kernel": "the weights that make the queries of an attention, all heads side by side",
    "key_kernel": "the same for its keys",
    "value_kernel": "the same for its values",
    "output_kernel": "the weights that mix the heads of an attention",
    "query_bias": "the weights added to the queries of an attention",
    "key_bias": "the same for its keys",
    "value_bias": "the same for its values",
    "output_bias": "the weights added to the output of an attention",
}
PLACEMENTS = {**ACTIVATIONS, **PARAMETERS}


def default_mean_over(placement: str) -> MeanOver:
    """Activations are averaged over the batch, parameters are summed."""
    return ("batch",) if placement in ACTIVATIONS else ()
