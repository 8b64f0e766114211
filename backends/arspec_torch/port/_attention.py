"""Writing attention as nn.MultiheadAttention, and what Keras does where a mask leaves nothing to attend to."""

from collections.abc import Callable
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._mapping import Step
from arspec.port._source import LAST, Place, Value


def attention(w: Any, kind: kinds.MultiHeadAttention, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write an attention over one axis of time; keys are the values where none are given."""
    count = len(arguments) - len(kind.masks)
    query, value, key = (arguments[:count] + arguments[1:2])[:3] if count > 1 else (arguments[0],) * 3
    features = _require_exact(w, kind, path, query, key, value)
    attribute = w.name_layer(node)
    name = "nn.MultiheadAttention"
    if kind.masks:
        w.helper("MaskedAttention")
        name = "MaskedAttention"
    w.attribute(
        attribute, f"{name}({features}, {kind.heads}{'' if kind.use_bias else ', bias=False'}, batch_first=True)"
    )
    given = f"{query.text}, {key.text}, {value.text}"
    if kind.causal:
        w.helper("future")
    if kind.masks:
        text = f"self.{attribute}({given}, {_mask(kind, arguments[count:], query, key)})[0]"
    else:
        later = f", attn_mask=future({query.text}, {key.text})" if kind.causal else ""
        text = f"self.{attribute}({given}{later}, need_weights=False)[0]"
    if node.call == 0:
        _weights(w, kind, node, path, features)
    return Value(text, node.shapes[0], LAST)


def _require_exact(w: Any, kind: kinds.MultiHeadAttention, path: str, *given: Value) -> int:
    features, size = int(given[0].shape[-1] or 0), kind.heads * kind.key_size
    if size != features or kind.value_size != kind.key_size:
        raise w.refuse(
            path,
            f"an attention of {kind.heads} heads of size {kind.key_size} (values {kind.value_size}) over {features} "
            "features",
            "nn.MultiheadAttention needs heads · size = features, for values too.",
        )
    if any(value.shape[-1] != features for value in given):
        raise w.refuse(path, "keys or values with another number of features", "Project them first.")
    return features


def _mask(kind: kinds.MultiHeadAttention, masks: list[Value], query: Value, key: Value) -> str:
    """Return an expression for the mask (batch, query, key), true where a step is attended to."""
    axes = {"query": 2, "value": 1, "key": 1}
    found = [f"{mask.text}.unsqueeze({axes[name]})" for name, mask in zip(kind.masks, masks, strict=True)]
    found += [f"~future({query.text}, {key.text})"] if kind.causal else []
    return " & ".join(found)


def _weights(w: Any, kind: kinds.MultiHeadAttention, node: Node, path: str, features: int) -> None:
    """Say where the weights go: the heads side by side, and queries, keys and values in thirds of one tensor."""
    target = w.path_of(w.name_layer(node))
    w.layers[path] = w.traced[path] = Place(target)
    for end in ("input", "output", *kind.roles()):
        w.place(path, end, target, end)
    turned: tuple[Step, ...] = (("reshape", (features, features)), ("transpose", (1, 0)))
    for index, name in enumerate(("query", "key", "value")):
        cut = ((0, index * features, (index + 1) * features),)
        w.weight(path, f"{name}_kernel", f"{target}.in_proj_weight", (3 * features, features), *turned, put=cut)
        if kind.use_bias:
            flat: Step = ("reshape", (features,))
            w.weight(path, f"{name}_bias", f"{target}.in_proj_bias", (3 * features,), flat, put=cut)
    w.weight(path, "output_kernel", f"{target}.out_proj.weight", (features, features), *turned)
    if kind.use_bias:
        w.weight(path, "output_bias", f"{target}.out_proj.bias", (features,))
    _freeze(w, kind, node, path)


def _freeze(w: Any, kind: kinds.MultiHeadAttention, node: Node, path: str) -> None:
    """Freeze the attention as a whole, or refuse: torch holds queries, keys and values in one tensor."""
    if not node.frozen:
        return
    if set(node.frozen) != set(kind.roles()):
        raise w.refuse(path, f"an attention of which {', '.join(node.frozen)} are frozen", "Freeze all of it, or none.")
    w.attribute_line(f"self.{w.name_layer(node)}.requires_grad_(False)")


def masked_average(w: Any, kind: kinds.MaskedAverage, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write the mean over the steps that count."""
    w.helper("mean_of_steps")
    x, mask = arguments
    text = f"mean_of_steps({x.text}, {mask.text})"
    return Value(f"{text}.unsqueeze(1)" if kind.keep else text, node.shapes[0])


EMITTERS: dict[type[Kind], Callable[..., Any]] = {
    kinds.MultiHeadAttention: attention,
    kinds.MaskedAverage: masked_average,
}

HELPERS = {
    "future": '''@torch.fx.wrap
def future(query: Tensor, key: Tensor) -> Tensor:
    """True where a step of the query would look at a later key."""
    later = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool, device=query.device)
    return later.triu(1)''',
    "MaskedAttention": '''class MaskedAttention(nn.MultiheadAttention):
    """Attention under a mask (batch, query, key), true where a step is attended to.

    A query that may attend to nothing averages all values; torch's own gives NaN there.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor
    ) -> tuple[Tensor, None]:
        kernels = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, kernel, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, kernel, bias in zip((query, key, value), kernels, biases)
        )
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        scores = torch.where(mask.unsqueeze(1), scores, torch.finfo(scores.dtype).min)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out_proj(y), None''',
    "mean_of_steps": '''@torch.fx.wrap
def mean_of_steps(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the steps where the mask is true."""
    return torch.where(mask.unsqueeze(-1), x, 0.0).sum(1) / mask.sum(1, keepdim=True)''',
}
