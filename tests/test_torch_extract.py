"""extract and ActivityRegularization: the Spec that a torch model and its optimizer carry."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.utils import parametrizations

import arspec as ar
import arspec_torch
from arspec_torch import ActivityRegularization

FEATURES, WIDTH = 3, 7


class Net(nn.Module):
    """Every kind of layer whose parameters an optimizer may shrink."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 6)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.rnn = nn.GRU(6, FEATURES, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * FEATURES, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.out(self.rnn(self.norm(self.attend(x, x, x)[0]))[0])


def stepped(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, penalties: Any = None) -> list[Tensor]:
    """Return the parameters after two steps."""
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        (loss if penalties is None else loss + penalties.total()).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


OPTIMIZERS = {
    "SGD": lambda parameters, decay: optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=decay),
    "Adam": lambda parameters, decay: optim.Adam(parameters, lr=0.01, weight_decay=decay),
    "RMSprop": lambda parameters, decay: optim.RMSprop(parameters, lr=0.01, weight_decay=decay),
    "NAdam": lambda parameters, decay: optim.NAdam(parameters, lr=0.01, weight_decay=decay),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_coupled_decay_is_the_penalty_it_is_turned_into(name: str) -> None:
    """Training with the optimizer's decay, and without it but with the extracted Spec."""
    model = Net().double()
    for p in model.parameters():
        p.data = torch.randn_like(p)
    twin = copy.deepcopy(model)
    tokens = torch.tensor([[0, 1, 4, 2], [3, 3, 0, 1]])
    optimizer = OPTIMIZERS[name](model.parameters(), 0.02)
    spec = arspec_torch.extract(model, optimizer)
    assert {rule.penalty for rule in spec.rules} == {ar.L2(0.01)}
    penalties = arspec_torch.attach(twin, ar.Spec.from_json(spec.to_json()))
    decayed = stepped(model, optimizer, tokens)
    penalized = stepped(twin, OPTIMIZERS[name](twin.parameters(), 0.0), tokens, penalties)
    for one, other in zip(decayed, penalized, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_every_parameter_has_its_rule() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, weight_decay=0.02)
    found = [(rule.layer, rule.placement) for rule in arspec_torch.extract(model, optimizer).rules]
    parts = [f"rnn/{layer}/{side}" for layer in (0, 1) for side in ("forward", "backward")]
    assert found == [
        ("embed", "embeddings"),
        *(("attend", f"{name}_kernel") for name in ("output", "query", "key", "value")),
        *(("attend", f"{name}_bias") for name in ("query", "key", "value", "output")),
        ("norm", "scale"),
        ("norm", "shift"),
        *((part, name) for part in parts for name in ("kernel", "recurrent_kernel", "bias")),
        ("out", "kernel"),
        ("out", "bias"),
    ]


def test_groups_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
    model[1].weight.requires_grad_(False)
    groups = [{"params": [layer.weight for layer in model], "weight_decay": 0.2}, {"params": [model[0].bias]}]
    found = arspec_torch.extract(model, optim.SGD(groups, lr=0.1)).rules
    assert [(rule.layer, rule.placement, rule.penalty) for rule in found] == [
        ("0", "kernel", ar.L2(0.1)),
        ("2", "kernel", ar.L2(0.1)),
    ]


def test_tied_parameters_decay_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "out": nn.Linear(3, 5, bias=False)})
    model["out"].weight = model["embed"].weight
    found = arspec_torch.extract(model, optim.SGD(model.parameters(), lr=0.1, weight_decay=0.2)).rules
    assert [(rule.layer, rule.placement) for rule in found] == [("embed", "embeddings")]


def test_what_is_attached_comes_first() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), ActivityRegularization(ar.L1(0.5), mean_over="sum"))
    rule = ar.Rule(ar.L1(0.1), layer="0", placement="pre_activation")
    own = ar.Rule(ar.L1(0.5), layer="1", placement="output", mean_over="sum")
    assert arspec_torch.extract(model) == ar.Spec([own])
    penalties = arspec_torch.attach(torch.compile(model), ar.Spec([rule]))
    assert arspec_torch.extract(model) == penalties.spec == ar.Spec([rule, own])
    with_decay = arspec_torch.extract(model, optim.SGD(model.parameters(), lr=0.1, weight_decay=0.2))
    assert with_decay.rules[:2] == (rule, own)
    assert len(with_decay.rules) == 4
    penalties.detach()
    assert arspec_torch.extract(model) == ar.Spec([own])


def decoupled(model: nn.Module) -> optim.Optimizer:
    return optim.Adam(model.parameters(), weight_decay=0.1, decoupled_weight_decay=True)


REFUSED = {
    "AdamW": (nn.Linear(2, 3), lambda m: optim.AdamW(m.parameters()), "decay is decoupled.* train with Adam"),
    "decoupled Adam": (nn.Linear(2, 3), decoupled, r"Adam\(decoupled_weight_decay=True\)"),
    "maximize": (
        nn.Linear(2, 3),
        lambda m: optim.SGD(m.parameters(), lr=0.1, weight_decay=0.1, maximize=True),
        "maximize=True",
    ),
    "LSTM": (
        nn.LSTM(2, 3),
        lambda m: optim.SGD(m.parameters(), lr=0.1, weight_decay=0.1),
        r"0.bias_ih_l0 \+ 0.bias_hh_l0 is one bias to a penalty; its two parts decay apart",
    ),
    "half of a bias": (
        nn.GRU(2, 3),
        lambda m: optim.SGD([m[0].bias_ih_l0], lr=0.1, weight_decay=0.1),
        "0.bias_ih_l0, 0.bias_hh_l0: its parts decay differently",
    ),
    "parametrized": (
        parametrizations.weight_norm(nn.Linear(2, 3)),
        lambda m: optim.SGD(m.parameters(), lr=0.1, weight_decay=0.1),
        "0.weight is parametrized: what decays is not the tensor",
    ),
    "unknown": (
        nn.Bilinear(2, 3, 4),
        lambda m: optim.SGD(m.parameters(), lr=0.1, weight_decay=0.1),
        "0.weight, 0.bias: it decays, and is no placement of a layer",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_d3_a_decay_that_is_no_penalty_is_refused(name: str) -> None:
    module, make, text = REFUSED[name]
    model = nn.Sequential(module)
    with pytest.raises(ar.UnsupportedError, match=text):
        arspec_torch.extract(model, make(model))


def test_extract_checks_what_it_is_given() -> None:
    with pytest.raises(ar.SpecError, match=r"expected a torch\.nn\.Module"):
        arspec_torch.extract(3)
    with pytest.raises(ar.SpecError, match=r"optimizer is a float; expected a torch\.optim\.Optimizer"):
        arspec_torch.extract(nn.Linear(2, 3), 0.1)


# ActivityRegularization


def native(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layer = ActivityRegularization(ar.L1(0.5), **options)
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(), layer, nn.Linear(WIDTH, 2))


def test_the_layer_is_a_rule_where_it_stands() -> None:
    x = torch.randn(5, FEATURES)
    model, twin = native(), native()
    twin[2] = nn.Identity()
    rule = ar.Rule(ar.L1(0.5), layer="0", placement="output")
    found = []
    for network, spec in ((model, None), (twin, ar.Spec([rule]))):
        penalties = arspec_torch.attach(network, spec)
        network(x)
        penalties.total().backward()
        found.append((penalties.total().item(), network[0].weight.grad))
    h = torch.relu(model[0](x)).detach().numpy()
    assert found[0][0] == found[1][0] == float(ar.value(ar.L1(0.5), h, mean_over="batchmean"))
    assert torch.equal(found[0][1], found[1][1])


def test_the_layer_does_not_hide_the_activation_before_it() -> None:
    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.mark = nn.Linear(FEATURES, WIDTH), ActivityRegularization(ar.L1(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.mark(torch.relu(self.hidden(x)))

    penalties = arspec_torch.attach(Layered(), ar.Spec([ar.Rule(ar.L2(0.5), layer="hidden", placement="output")]))
    assert [site.tensor for site in penalties.sites] == ["relu(hidden())", "mark()"]


def test_the_layer_refuses_to_train_alone() -> None:
    model, x = native(), torch.randn(5, FEATURES)
    with pytest.raises(ar.SpecError, match="has no effect by itself"):
        model(x)
    model.eval()(x)
    model.train()
    with torch.no_grad():
        model(x)
    penalties = arspec_torch.attach(model)
    model(x)
    assert penalties.total().item() > 0


def test_options_of_the_layer() -> None:
    x = torch.randn(5, FEATURES)
    model = native(mean_over="sum", when="train")
    penalties = arspec_torch.attach(model)
    h = torch.relu(model[0](x))
    model(x)
    assert penalties.total().item() == float(ar.value(ar.L1(0.5), h.detach().numpy()))
    model.eval()(x)
    assert penalties.total().item() == 0.0
    assert "L1(coefficient=0.5), mean_over=()" in repr(model)

    image = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU())
    by_channel = ar.GroupLasso(0.5, norm_over=("height", "width"))
    image.append(ActivityRegularization(by_channel, axes="batch feature height width"))
    penalties = arspec_torch.attach(image)
    y = image(torch.randn(2, 2, 5, 4))
    expected = ar.value(by_channel, y.detach().numpy(), axes="batch feature height width", mean_over="batchmean")
    assert penalties.total().item() == float(expected)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"mean_over": "bach"}, "bach"), ({"when": "test"}, "unknown when"), ({"axes": "batch channel"}, "channel")],
)
def test_options_of_the_layer_are_checked(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ar.SpecError, match=text):
        ActivityRegularization(ar.L1(1.0), **options)


def test_attach_needs_a_spec_or_a_layer_that_is_one() -> None:
    with pytest.raises(ar.SpecError, match="no spec, and no ActivityRegularization in the model"):
        arspec_torch.attach(nn.Linear(2, 3))
