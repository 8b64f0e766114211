"""What the torch engine refuses before it computes, and while it is differentiated."""

import warnings

import torch
from torch import Tensor

from arspec import SpecError, UnsupportedError


def refuse_kinds(x: object, mask: object) -> None:
    """Refuse what is not a dense tensor, and a mask that is no tensor."""
    if not isinstance(x, Tensor):
        raise UnsupportedError(f"x is a {type(x).__name__}; expected a torch.Tensor. For NumPy call arspec.value.")
    if x.is_nested:
        raise UnsupportedError(
            "x is a nested tensor; pad it by x.to_padded_tensor(0.0) and say in mask= what is valid."
        )
    if x.layout is not torch.strided:
        raise UnsupportedError(f"x has the layout {x.layout}; expected a dense tensor: x.to_dense().")
    if mask is not None and not isinstance(mask, Tensor):
        raise SpecError(f"mask is a {type(mask).__name__}; expected a torch.Tensor of bool, true where x is valid.")


def refuse_nested_forward_mode() -> None:
    """Refuse a second level of torch.func.jvp around the one that asks for a tangent."""
    # Not public, hence asked for only here, where forward mode would otherwise go wrong silently.
    from torch._C._functorch import TransformType
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

    # torch calls `jvp` with the forward mode of the outer levels switched off: a silent zero.
    levels = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
    if levels.count(TransformType.Jvp) > 1:
        raise UnsupportedError(
            "forward mode inside forward mode (jvp of jvp, jacfwd of jacfwd) loses its outer tangent in torch; "
            "use reverse mode inside: torch.func.hessian, or jacfwd(grad(...))."
        )


def numerics_on(device: str, numerics: str) -> str:
    """Return the numerics a device can serve: one without float64 only has bounded ones, and says so."""
    if device != "mps" or numerics == "bounded":
        return numerics
    warnings.warn(
        "x is on MPS, which has no float64: the penalty is computed in float32 (numerics='bounded'), "
        "within its rounding and not to the bit. Say numerics='bounded' to accept that.",
        stacklevel=3,
    )
    return "bounded"
