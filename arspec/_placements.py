"""Where in a layer a penalty applies, and what a rule assumes there."""

from arspec._axes import MeanOver

ACTIVATIONS = {
    "pre_activation": "what the layer's affine map gives, before its activation function",
    "output": "what the layer gives, after its activation function",
}
PARAMETERS = {
    "kernel": "the weights that multiply the input",
    "bias": "the weights that are added",
}
PLACEMENTS = {**ACTIVATIONS, **PARAMETERS}


def default_mean_over(placement: str) -> MeanOver:
    """Activations are averaged over the batch, parameters are summed."""
    return ("batch",) if placement in ACTIVATIONS else ()
