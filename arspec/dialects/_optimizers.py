"""torch `weight_decay`, optax and the Haiku examples: decay that is, or is not, an L2 penalty.

Coupled decay adds `weight_decay · w` to the gradient before the optimizer sees it: exactly
the gradient of `weight_decay · ½Σw²`, so it is `L2(weight_decay / 2)`. Decoupled decay
shrinks w beside the step of the optimizer; no penalty has that effect, and it is refused.

Sources
-------
- torch 2.13, `torch/optim/*.py`: `grad = grad.add(param, alpha=weight_decay)` in SGD, Adam,
  Adagrad, Adadelta, RMSprop, ASGD, NAdam, RAdam and Adamax (the two with
  `decoupled_weight_decay=False`, their default); `param.mul_(1 - lr * weight_decay)` in
  AdamW, Adafactor and Muon. Rprop, SparseAdam and LBFGS have no decay.
- optax 0.2.8: `add_decayed_weights` as the first of a chain is coupled, whatever follows;
  `adadelta` and `lars` put it first (`optax/_src/alias.py`); adamw, nadamw, adamaxw, lamb,
  lion, adan, adafactor and novograd apply it after their scaling. `optax.l2_loss` is ½x².
- Haiku, `examples/imagenet/train.py` and `examples/mnist.py`: `weight_decay * 0.5 * Σw²`,
  without the parameters of batch normalization in the former.

Notes
-----
The decay of an optimizer is not clipped with the gradient, and it meets *every* parameter
of its group, biases and normalization included. A penalty of L2 does neither by itself.
"""

from collections.abc import Iterable

from arspec._errors import UnsupportedError
from arspec._rule import Rule
from arspec.dialects._dialect import named_rules
from arspec.dialects._terms import EVERY_PARAMETER, TermDialect, proportional
from arspec.penalties import L2

_DECOUPLED = (
    "its decay is decoupled: it shrinks the weights beside the step, which is the gradient of no penalty. "
    "Leave it in the optimizer, or write L2 and train with {}."
)


class TorchDialect(TermDialect):
    """torch `weight_decay`: a term per optimizer, a parameter group per term."""

    __slots__ = ()

    def from_weight_decay(
        self, optimizer: str, weight_decay: float, layers: str = "**", *, placements: Iterable[str] | None = None
    ) -> list[Rule]:
        """Return the rules that mean `optimizer(parameters, weight_decay=weight_decay)`.

        Parameters
        ----------
        optimizer : its class, such as "SGD".
        weight_decay : finite number >= 0.
        layers : the layers whose parameters the optimizer was given, a path or a glob.
        placements : the kinds of parameters the model has, such as ("kernel", "bias"). None
            stands for all there are, since the optimizer leaves none out; a rule for a kind
            that the model lacks is then an error where it is attached.

        Returns
        -------
        One rule per placement: `L2(weight_decay / 2)`, summed.

        Raises
        ------
        SpecError: no such optimizer or placement.
        UnsupportedError: the optimizer decouples the decay, as AdamW does.

        Example
        -------
        >>> from arspec import dialects
        >>> kernel, bias = dialects.torch.from_weight_decay("SGD", 0.02, placements=("kernel", "bias"))
        >>> kernel.penalty, bias.placement
        (L2(coefficient=0.01), 'bias')
        """
        where = EVERY_PARAMETER if placements is None else tuple(placements)
        return [self.rule(optimizer, layer=layers, placement=p, weight_decay=weight_decay) for p in where]

    def to_weight_decay(self, rules: Rule | Iterable[Rule], *, placements: Iterable[str] | None = None) -> float:
        """Return the `weight_decay` of a coupled optimizer that does exactly what the rules do.

        Parameters
        ----------
        rules : one L2 per placement, of the same coefficient, on every layer ("**").
        placements : the kinds of parameters the model has; None for all there are.

        Raises
        ------
        UnsupportedError: the rules are not that; the text says what is in the way. `write`
            gives a weight decay per parameter group instead.

        Example
        -------
        >>> import arspec as ar
        >>> from arspec import dialects
        >>> rules = [ar.Rule(ar.L2(0.01), layer="**", placement=p) for p in ("kernel", "bias")]
        >>> dialects.torch.to_weight_decay(rules, placements=("kernel", "bias"))
        0.02
        """
        expected = sorted(EVERY_PARAMETER if placements is None else placements)
        groups = self.write(rules)["terms"]
        partial = next((what for what, rule in named_rules(rules) if rule.layer.strip("./") != "**"), None)
        if partial is not None:
            raise UnsupportedError(f"{partial}: weight_decay meets every layer; this rule names some. Use write().")
        met = sorted(group["placement"] for group in groups)
        if met != expected:
            raise UnsupportedError(f"weight_decay meets {', '.join(expected)}; the rules meet {', '.join(met)}.")
        decays = {group["weight_decay"] for group in groups}
        if len(decays) != 1:
            raise UnsupportedError(f"one weight_decay for all: the rules amount to {sorted(decays)}. Use write().")
        return decays.pop()


_COUPLED = ("SGD", "Adam", "Adagrad", "Adadelta", "RMSprop", "ASGD", "NAdam", "RAdam", "Adamax")

torch = TorchDialect(
    name="torch",
    about="torch.optim weight_decay, per parameter group: L2(weight_decay / 2) where it is coupled",
    key="optimizer",
    table=tuple(proportional(name, L2, "weight_decay", halved=True) for name in _COUPLED),
    refused={
        "AdamW": _DECOUPLED.format("Adam"),
        "Adafactor": _DECOUPLED.format("another optimizer"),
        "Muon": _DECOUPLED.format("another optimizer"),
        **dict.fromkeys(("Rprop", "SparseAdam", "LBFGS"), "this optimizer has no weight decay."),
    },
    single=True,
)

optax = TermDialect(
    name="optax",
    about="add_decayed_weights first in the chain is L2(weight_decay / 2); optax.l2_loss is ½x²",
    key="transform",
    table=(
        *(proportional(name, L2, "weight_decay", halved=True) for name in ("add_decayed_weights", "adadelta", "lars")),
        proportional("l2_loss", L2, "scale", halved=True),
    ),
    refused=dict.fromkeys(
        ("adamw", "nadamw", "adamaxw", "lamb", "lion", "adan", "adafactor", "novograd", "scale_by_novograd"),
        _DECOUPLED.format("chain(add_decayed_weights(...), adam(...))"),
    ),
)

haiku = TermDialect(
    name="haiku",
    about="the Haiku examples: weight_decay·½Σw², added to the loss",
    key="loss",
    table=(proportional("l2_loss", L2, "weight_decay", halved=True),),
)
