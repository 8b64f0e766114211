"""Whole models, regularized in three lines: numbers equal to the same penalties written by hand."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
import arspec_torch

BATCH, TIME, TOKENS, WIDTH = 3, 7, 11, 6


class Classifier(nn.Module):
    """A text classifier on torch's TransformerEncoder, with a table of positions of its own."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.position = nn.Parameter(torch.randn(TIME, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 13, 0.0, "gelu", batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


def tokens() -> Tensor:
    return torch.randint(0, TOKENS, (BATCH, TIME), generator=torch.Generator().manual_seed(2))


TRANSFORMER = """
{"arspec": "2026.1", "rules": [
 {"penalty": {"name": "l1", "coefficient": 0.01}, "layer": "encoder/layers/*/linear1", "placement": "output",
  "mean_over": ["batch", "time"]},
 {"penalty": {"name": "l2", "coefficient": 0.02}, "layer": "encoder/**", "placement": "query_kernel"},
 {"penalty": {"name": "l2", "coefficient": 0.03}, "layer": "**", "placement": "kernel"}
]}
"""


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_encoder(batch_first: bool) -> None:
    model, twin = Classifier(batch_first).double(), Classifier(batch_first).double()
    penalties = arspec_torch.attach(model, ar.Spec.from_json(TRANSFORMER), roles={Classifier: {}})
    (F.cross_entropy(model(tokens()), torch.tensor([0, 1, 1])) + penalties.total()).backward()

    shown: list[Tensor] = []
    for layer in twin.encoder.layers:
        layer.linear1.register_forward_hook(lambda module, args, output: shown.append(F.gelu(output)))
    task = F.cross_entropy(twin(tokens()), torch.tensor([0, 1, 1]))
    by_hand = sum(0.01 * h.abs().sum(-1).mean() for h in shown)
    for layer in twin.encoder.layers:
        by_hand = by_hand + 0.02 * layer.self_attn.in_proj_weight[:WIDTH].square().sum()
        by_hand = by_hand + 0.03 * (layer.linear1.weight.square().sum() + layer.linear2.weight.square().sum())
    by_hand = by_hand + 0.03 * twin.head.weight.square().sum()
    (task + by_hand).backward()
    assert penalties.total().item() == pytest.approx(by_hand.item(), rel=1e-6)
    for mine, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-7, atol=1e-9)


def test_the_table_of_positions_has_no_role_until_it_is_given_one() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"layer 'model' \(Classifier\), kernel: .* \(position\)"):
        arspec_torch.attach(Classifier(), ar.Spec.from_json(TRANSFORMER))
    everywhere = arspec_torch.attach(Classifier(), ar.Spec([ar.Rule(ar.L2(0.5), layer="**", placement="input")]))
    assert "model" not in [site.layer for site in everywhere.sites]
    rule = ar.Rule(ar.L2(0.5), layer="model", placement="embeddings")
    roles = {Classifier: {"position": "embeddings: input output"}}
    model = Classifier()
    penalties = arspec_torch.attach(model, ar.Spec([rule]), roles=roles)
    assert penalties.total().item() == float(ar.value(ar.L2(0.5), model.position.detach().numpy()))


def test_a_compiled_transformer_with_masks_and_without_graph_breaks() -> None:
    model = Classifier()
    rules = [ar.Rule(ar.L1(0.1), layer="encoder/**/linear1", placement="output", mean_over=("batch", "time"))]
    rules += [ar.Rule(ar.L2(0.1), layer="**", placement="value_kernel")]
    penalties = arspec_torch.attach(model, ar.Spec(rules))
    mask = torch.ones(BATCH, TIME, dtype=torch.bool).tril(3)

    def loss(x: Tensor) -> Tensor:
        return model(x).square().mean() + penalties.total()

    found = []
    for function in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        with penalties.masks({"encoder/**": mask}):
            total = function(tokens())
        total.backward()
        found.append((total.item(), [p.grad.clone() for p in model.parameters()]))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    for mine, expected in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(mine, expected)


class LanguageModel(nn.Module):
    """Merity's arrangement: stacked LSTMs with dropout between them, weights tied at both ends."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.lstms = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(2))
        self.drop = nn.Dropout(0.4)
        self.decode = nn.Linear(WIDTH, TOKENS)
        self.decode.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for lstm in self.lstms:
            raw, _ = lstm(x)
            x = self.drop(raw)
        return self.decode(x)


AWD_LSTM = """
{"arspec": "2026.1", "rules": [
 {"penalty": {"name": "l2", "coefficient": 2.0}, "layer": "decode", "placement": "input", "mean_over": "mean"},
 {"penalty": {"name": "temporal_difference", "coefficient": 1.0}, "layer": "lstms/1", "placement": "hidden_state",
  "mean_over": "mean"},
 {"penalty": {"name": "l1", "coefficient": 0.01}, "layer": "lstms/*", "placement": "cell_state"},
 {"penalty": {"name": "l2", "coefficient": 0.02}, "layer": "lstms/*", "placement": "forget_gate"}
]}
"""


def test_ar_on_the_dropped_and_tar_on_the_raw_output_of_an_lstm() -> None:
    model = LanguageModel().double()
    penalties = arspec_torch.attach(model, ar.Spec.from_json(AWD_LSTM))
    kept: dict[str, Tensor] = {}
    model.drop.register_forward_hook(lambda module, args, output: kept.update(raw=args[0], dropped=output))
    torch.manual_seed(1)
    model(tokens())
    losses = {key: loss.item() for key, loss in penalties.losses().items()}
    raw, dropped = kept["raw"], kept["dropped"]
    assert losses["decode/input/l2"] == pytest.approx(2 * dropped.square().mean().item(), rel=1e-7)
    difference = (raw[:, 1:] - raw[:, :-1]).square().mean().item()
    assert losses["lstms/1/hidden_state/temporal_difference"] == pytest.approx(difference, rel=1e-7)
    penalties.total().backward()
    assert all(p.grad is not None for p in model.lstms.parameters())
    assert not torch.equal(raw, dropped)


# Where it breaks a graph, the compiler itself looks at the .grad of what flows through.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_lstm_counts_the_same() -> None:
    """torch.compile leaves nn.LSTM to eager mode; what surrounds it is compiled."""
    model = LanguageModel().eval()
    penalties = arspec_torch.attach(model, ar.Spec.from_json(AWD_LSTM))
    model(tokens())
    expected = {key: loss.item() for key, loss in penalties.losses().items()}
    torch.compile(model, backend="aot_eager")(tokens())
    assert {key: loss.item() for key, loss in penalties.losses().items()} == pytest.approx(expected, rel=1e-6)


CHANNELS = """
{"arspec": "2026.1", "rules": [
 {"penalty": {"name": "group_lasso", "coefficient": 0.1, "norm_over": ["input", "height", "width"]},
  "layer": "body/*", "placement": "kernel"},
 {"penalty": {"name": "group_lasso", "coefficient": 0.2, "norm_over": ["height", "width"]},
  "layer": "body/0", "placement": "output"},
 {"penalty": {"name": "l2", "coefficient": 0.3}, "layer": "body/*", "placement": "scale"}
]}
"""


class Bodied(nn.Module):
    """A model whose one part is called "body"."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_a_convolutional_network_with_a_group_per_channel() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(5), nn.Conv2d(5, 3, 2))
    model = Bodied(body).double()
    penalties = arspec_torch.attach(model, ar.Spec.from_json(CHANNELS))
    x = torch.randn(BATCH, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    model(x)
    kernels = sum(0.1 * layer.weight.flatten(1).norm(dim=1).sum() for layer in (body[0], body[3]))
    shown = torch.relu(F.conv2d(x, body[0].weight, body[0].bias))
    by_hand = kernels + 0.2 * shown.flatten(2).norm(dim=2).sum() / BATCH + 0.3 * body[2].weight.square().sum()
    assert penalties.total().item() == pytest.approx(by_hand.item(), rel=1e-6)
    gradients = torch.autograd.grad(by_hand, [body[0].weight, x])
    for mine, expected in zip(torch.autograd.grad(penalties.total(), [body[0].weight, x]), gradients, strict=True):
        np.testing.assert_allclose(mine.numpy(), expected.numpy(), rtol=1e-6, atol=1e-9)


class Block(nn.Module):
    """Calls its layer by keyword, the mask first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Masked()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(mask=torch.zeros(1, 1), hidden_states=x)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, 2)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.dense(input=hidden_states)


def test_the_input_is_the_first_argument_even_if_it_is_passed_by_name() -> None:
    model = Block()
    rules = [ar.Rule(ar.L1(1.0), layer=layer, placement="input") for layer in ("inner", "inner/dense")]
    penalties = arspec_torch.attach(model, ar.Spec(rules))
    x = torch.randn(BATCH, WIDTH)
    model(x)
    expected = float(ar.value(ar.L1(1.0), x.numpy(), mean_over="batchmean"))
    assert [loss.item() for loss in penalties.losses().values()] == [expected, expected]


def test_specs_round_trip() -> None:
    for text in (TRANSFORMER, AWD_LSTM, CHANNELS):
        spec = ar.Spec.from_json(text)
        assert ar.Spec.from_document(json.loads(spec.to_json())) == spec


def test_a_model_of_transformers_in_three_lines() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=TOKENS, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
    )
    model = transformers.BertForSequenceClassification(config)
    rules = [
        ar.Rule(ar.L1(1e-3), layer="bert/encoder/layer/*/intermediate", placement="output"),
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
    ]
    penalties = arspec_torch.attach(model, ar.Spec(rules))
    output = model(input_ids=tokens(), labels=torch.tensor([0, 1, 1]))
    (output.loss + penalties.total()).backward()
    assert len(penalties.sites) == 2 + 2 * 6 + 2
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    kernels = sum(float(ar.value(ar.L2(1e-3), w.detach().numpy())) for w in weights)
    found = sum(loss.item() for key, loss in penalties.losses().items() if key.endswith("kernel/l2"))
    assert found == pytest.approx(kernels, rel=1e-6)
