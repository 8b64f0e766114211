"""attach on torch modules: the right tensor, the right numbers, or a loud error."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import arspec as ar
import arspec_torch

BATCH, INPUTS, WIDTH = 5, 3, 7


class Functional(nn.Module):
    """An MLP whose activation functions are calls, as most people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(INPUTS, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.hidden(x), 0.2)
        return self.out(torch.tanh(self.middle(x)))


class SharedActivation(Functional):
    """One activation module for two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.act(self.middle(self.act(self.hidden(x)))))


class Untraceable(Functional):
    """Control flow that torch.fx cannot follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.hidden(x)
        if h.sum() > 0:
            h = h * 2
        return self.out(torch.relu(h))


def sequential() -> nn.Sequential:
    return nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(BATCH, INPUTS)


def rule(penalty: ar.Penalty, layer: str, placement: str, **options: object) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def one(layer: str, placement: str, **options: object) -> ar.Spec:
    return ar.Spec([rule(ar.L1(0.5) + ar.L2(0.25), layer, placement, **options)])


def reference(tensor: torch.Tensor, **options: object) -> float:
    return float(ar.value(ar.L1(0.5) + ar.L2(0.25), tensor.detach().numpy(), **options))


def test_c1_every_placement_of_a_sequential(x: torch.Tensor) -> None:
    model = sequential()
    spec = ar.Spec([rule(ar.L1(0.5) + ar.L2(0.25), "0", p) for p in ("pre_activation", "output", "kernel", "bias")])
    penalties = arspec_torch.attach(model, spec)
    model(x)
    h = model[0](x)
    expected = {
        "0/pre_activation/sum": reference(h, mean_over="batchmean"),
        "0/output/sum": reference(torch.relu(h), mean_over="batchmean"),
        "0/kernel/sum": reference(model[0].weight),
        "0/bias/sum": reference(model[0].bias),
    }
    assert {key: loss.item() for key, loss in penalties.losses().items()} == expected
    assert penalties.total().item() == pytest.approx(sum(expected.values()), rel=1e-6)


@pytest.mark.parametrize("placement", ["pre_activation", "output", "kernel", "bias"])
def test_gradients_are_those_of_the_definition(x: torch.Tensor, placement: str) -> None:
    """The chain rule by hand: reference gradient at the site, times the layer's Jacobian."""
    model = sequential()
    penalties = arspec_torch.attach(model, one("0", placement))
    model(x)
    penalties.total().backward()
    layer = model[0]
    h = layer(x).detach()
    penalty = ar.L1(0.5) + ar.L2(0.25)
    if placement in ("kernel", "bias"):
        parameter = layer.weight if placement == "kernel" else layer.bias
        assert np.array_equal(parameter.grad.numpy(), ar.gradient(penalty, parameter.detach().numpy()))
        return
    at_site = h if placement == "pre_activation" else torch.relu(h)
    upstream = torch.from_numpy(ar.gradient(penalty, at_site.numpy(), mean_over="batchmean"))
    upstream = upstream if placement == "pre_activation" else upstream * (h > 0)
    torch.testing.assert_close(layer.weight.grad, upstream.T @ x)
    torch.testing.assert_close(layer.bias.grad, upstream.sum(0))


def test_functional_activations_are_found(x: torch.Tensor) -> None:
    model = Functional()
    penalties = arspec_torch.attach(
        model, ar.Spec([rule(ar.L1(0.5) + ar.L2(0.25), layer, "output") for layer in ("hidden", "middle", "out")])
    )
    y = model(x)
    h = F.leaky_relu(model.hidden(x), 0.2)
    found = [loss.item() for loss in penalties.losses().values()]
    assert found == [reference(t, mean_over="batchmean") for t in (h, torch.tanh(model.middle(h)), y)]
    assert [site.tensor for site in penalties.sites] == ["leaky_relu(hidden())", "tanh(middle())", "out()"]


def test_shared_inplace_activation_counts_the_named_layer_only(x: torch.Tensor) -> None:
    model = SharedActivation()
    penalties = arspec_torch.attach(model, one("hidden", "output"))
    model(x)
    expected = reference(torch.relu(F.linear(x, model.hidden.weight, model.hidden.bias)), mean_over="batchmean")
    assert penalties.total().item() == expected
    penalties.total().backward()


@pytest.mark.parametrize("placement", ["pre_activation", "output"])
def test_c2_inplace_relu_after_a_captured_pre_activation(x: torch.Tensor, placement: str) -> None:
    """An in-place module overwrites what was captured: value and gradient are those of the copy."""
    model, twin = SharedActivation(), SharedActivation()
    twin.load_state_dict(model.state_dict())
    twin.act.inplace = False
    found = []
    for one_model in (model, twin):
        penalties = arspec_torch.attach(one_model, one("hidden", placement))
        (one_model(x).sum() + penalties.total()).backward()
        found.append((penalties.total().item(), [p.grad for p in one_model.parameters()]))
    h = F.linear(x, model.hidden.weight, model.hidden.bias)
    h = h if placement == "pre_activation" else torch.relu(h)
    assert found[0][0] == found[1][0] == reference(h, mean_over="batchmean")
    for mine, expected in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(mine, expected)


def test_c2_the_input_of_an_inplace_module_is_what_it_was_given(x: torch.Tensor) -> None:
    model = SharedActivation()
    penalties = arspec_torch.attach(model, one("act", "pre_activation"))
    model(x)
    h = F.linear(x, model.hidden.weight, model.hidden.bias)
    expected = reference(h, mean_over="batchmean") + reference(model.middle(torch.relu(h)), mean_over="batchmean")
    assert penalties.total().item() == pytest.approx(expected, rel=1e-6)


def test_c2_an_inplace_function_is_an_error_of_torch(x: torch.Tensor) -> None:
    class InPlace(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(F.relu(self.hidden(x), inplace=True))

    model = InPlace()
    penalties = arspec_torch.attach(model, one("hidden", "pre_activation"))
    model(x)
    h = F.linear(x, model.hidden.weight, model.hidden.bias)
    assert penalties.total().item() == reference(h, mean_over="batchmean")
    with pytest.raises(RuntimeError, match="inplace operation"):
        penalties.total().backward()


def test_c6_hooks_do_not_run_when_a_model_is_looked_into(x: torch.Tensor) -> None:
    """torch.fx would run them with symbols; those of FSDP2 set a model up for good."""
    calls = []
    model = nn.Sequential(Functional(), nn.ReLU())
    model[0].register_forward_pre_hook(lambda module, args: calls.append(args))
    with pytest.raises(ar.UnsupportedError, match="could not see which activation function"):
        arspec_torch.attach(model, one("0/hidden", "output"))
    arspec_torch.attach(model, one("0/hidden", "output"), activations={"0/hidden": torch.relu})
    assert calls == []


def test_the_model_is_not_run_where_no_rule_asks_for_an_activation_function(x: torch.Tensor) -> None:
    class Counting(Functional):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return super().forward(x)

    model = Counting()
    arspec_torch.attach(model, one("hidden", "pre_activation"))
    assert model.runs == 0


def test_activations_of_subclasses_of_torch_layers_are_found() -> None:
    class Own(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = Functional()
    model.hidden = Own(INPUTS, WIDTH)
    penalties = arspec_torch.attach(model, one("hidden", "output"))
    assert penalties.sites[0].tensor == "leaky_relu(hidden())"


def test_lazy_modules_must_have_run() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Tanh())
    with pytest.raises(ar.SpecError, match="a LazyLinear of the model has no parameters yet; run the model once"):
        arspec_torch.attach(model, one("0", "kernel"))
    model(torch.ones(2, 4))
    penalties = arspec_torch.attach(model, one("0", "kernel"))
    assert penalties.total().item() == reference(model[0].weight)


def test_unknown_activation_is_refused_with_the_cure() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"layer 'hidden' \(Linear\), output: .*activations=\{'hidden'"):
        arspec_torch.attach(Untraceable(), one("hidden", "output"))


def test_activation_may_be_given(x: torch.Tensor) -> None:
    model = Untraceable()
    penalties = arspec_torch.attach(model, one("hidden", "output"), activations={"hidden": torch.relu})
    model(x)
    assert penalties.total().item() == reference(torch.relu(model.hidden(x)), mean_over="batchmean")


@pytest.mark.parametrize("given", [3, "nowhere"])
def test_given_activation_is_checked(given: object) -> None:
    with pytest.raises(ar.SpecError, match="expected the path of a module, a function or None"):
        arspec_torch.attach(Functional(), one("hidden", "output"), activations={"hidden": given})
    with pytest.raises(ar.SpecError, match="activations names the layer 'hiden'"):
        arspec_torch.attach(Functional(), one("hidden", "output"), activations={"hiden": torch.relu})


def test_glob_counts_each_layer_once(x: torch.Tensor) -> None:
    model = sequential()
    penalties = arspec_torch.attach(model, ar.Spec([rule(ar.L2(1.0), "**", p) for p in ("kernel", "output")]))
    model(x)
    assert list(penalties.losses()) == ["0/kernel/l2", "2/kernel/l2", "0/output/l2", "2/output/l2"]


def test_c7_tied_weights_count_once_and_shared_layers_per_call(x: torch.Tensor) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(INPUTS, INPUTS)
            self.tied = nn.Linear(INPUTS, INPUTS)
            self.tied.weight = self.hidden.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tied(self.hidden(self.hidden(x)))

    model = Twice()
    spec = ar.Spec([rule(ar.L2(1.0), "**", "kernel"), rule(ar.L1(1.0), "hidden", "pre_activation")])
    penalties = arspec_torch.attach(model, spec)
    model(x)
    assert list(penalties.losses()) == ["hidden/kernel/l2", "hidden/pre_activation/l1"]
    first = model.hidden(x)
    expected = sum(
        float(ar.value(ar.L1(1.0), h.detach().numpy(), mean_over="batchmean")) for h in (first, model.hidden(first))
    )
    assert penalties.losses()["hidden/pre_activation/l1"].item() == pytest.approx(expected, rel=1e-6)


def test_the_same_rule_twice_counts_twice() -> None:
    rules = [rule(ar.L2(1.0), "0", "kernel"), rule(ar.L2(1.0), "0", "kernel")]
    assert list(arspec_torch.attach(sequential(), ar.Spec(rules)).losses()) == ["0/kernel/l2", "0/kernel/l2#2"]


def test_each_pass_starts_anew(x: torch.Tensor) -> None:
    model = sequential()
    penalties = arspec_torch.attach(model, one("0", "pre_activation"))
    model(x)
    first = penalties.total().item()
    model(x)
    assert penalties.total().item() == first
    model.eval()(2 * x)
    assert penalties.total().item() == reference(model[0](2 * x), mean_over="batchmean")


def test_c18_a_rule_that_never_fires_is_an_error(x: torch.Tensor) -> None:
    class Idle(Functional):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hidden(x)

    model = Idle()
    penalties = arspec_torch.attach(model, one("middle", "pre_activation"))
    model(x)
    for ask in (penalties.total, penalties.losses):
        with pytest.raises(ar.SpecError, match="'middle/pre_activation/sum' never fired"):
            ask()
    with pytest.raises(ar.SpecError, match="never fired"):
        arspec_torch.attach(sequential(), one("0", "output")).total()


@pytest.mark.parametrize(
    ("layer", "placement", "text"),
    [
        ("hiden", "kernel", r"matches no layer: layer='hiden'.*Did you mean 'hidden'\?"),
        ("nothing/**", "kernel", "matches no layer"),
        ("act", "kernel", r"layer 'act' \(ReLU\) has no placement 'kernel'"),
    ],
)
def test_c18_a_rule_that_matches_nothing_is_an_error(layer: str, placement: str, text: str) -> None:
    with pytest.raises(ar.SpecError, match=text):
        arspec_torch.attach(SharedActivation(), one(layer, placement))


def test_attach_twice_and_detach(x: torch.Tensor) -> None:
    model = sequential()
    before = {path: type(module) for path, module in model.named_modules()}
    keys = list(model.state_dict())
    penalties = arspec_torch.attach(model, one("0", "pre_activation"))
    assert list(model.state_dict()) == keys
    with pytest.raises(ar.SpecError, match="already attached"):
        arspec_torch.attach(model, one("0", "kernel"))
    penalties.detach()
    assert {path: type(module) for path, module in model.named_modules()} == before
    arspec_torch.attach(model, one("0", "kernel"))


def test_empty_spec_is_zero(x: torch.Tensor) -> None:
    model = sequential()
    penalties = arspec_torch.attach(model, ar.Spec([]))
    model(x)
    assert penalties.total().item() == 0.0


def test_weights_need_no_forward_pass() -> None:
    model = sequential()
    assert arspec_torch.attach(model, one("0", "kernel")).total().item() == reference(model[0].weight)


def test_c3_models_compiled_before_attach_are_compiled_again(x: torch.Tensor) -> None:
    twin, model = Functional(), Functional()
    torch.compile(twin, fullgraph=True)(x)
    compiled = torch.compile(model, fullgraph=True)
    compiled(x)
    penalties = arspec_torch.attach(compiled, one("hidden", "output"))
    compiled(x)
    from_compiled = penalties.total().item()
    model(x)
    assert from_compiled == pytest.approx(penalties.total().item(), rel=1e-6)
    assert from_compiled > 0


def test_compiled_training_step_without_graph_break(x: torch.Tensor) -> None:
    model = Functional()
    penalties = arspec_torch.attach(
        model, ar.Spec([rule(ar.L1(0.1), "hidden", "output"), rule(ar.L2(0.1), "**", "kernel")])
    )

    def loss(x: torch.Tensor) -> torch.Tensor:
        return model(x).square().mean() + penalties.total()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        model.zero_grad()
        function(x).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_c4_checkpointing(x: torch.Tensor) -> None:
    class Checkpointed(Functional):
        reentrant = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.utils.checkpoint.checkpoint(self.hidden, x, use_reentrant=self.reentrant)
            return self.out(torch.tanh(self.middle(torch.relu(x))))

    model = Checkpointed()
    penalties = arspec_torch.attach(model, one("hidden", "pre_activation"))
    loss = model(x).sum() * 0 + penalties.total()
    loss.backward()
    upstream = torch.from_numpy(
        ar.gradient(ar.L1(0.5) + ar.L2(0.25), model.hidden(x).detach().numpy(), mean_over="batchmean")
    )
    torch.testing.assert_close(model.hidden.bias.grad, upstream.sum(0))
    assert penalties.total().item() == reference(model.hidden(x), mean_over="batchmean")
    model.reentrant = True
    with pytest.raises(ar.SpecError, match="use_reentrant=False"):
        model(x.requires_grad_())


def test_functional_call_and_vmap_use_the_weights_of_the_pass(x: torch.Tensor) -> None:
    model = Functional()
    penalties = arspec_torch.attach(model, one("**", "kernel"))
    doubled = {name: 2 * p.detach() for name, p in model.named_parameters()}
    torch.func.functional_call(model, doubled, (x,))
    weights = [model.hidden.weight, model.middle.weight, model.out.weight]
    assert penalties.total().item() == pytest.approx(sum(reference(2 * w) for w in weights), rel=1e-6)

    def total(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.func.functional_call(model, parameters, (x,))
        return penalties.total()

    stacked = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in model.named_parameters()}
    totals = torch.func.vmap(total)(stacked)
    expected = [sum(reference(k * w) for w in weights) for k in (1, 2)]
    assert totals.tolist() == pytest.approx(expected, rel=1e-6)


def test_torch_func_around_a_model_leaves_its_own_weights_alone(x: torch.Tensor) -> None:
    """The weights are constants of the transformation, and still tensors that want a gradient."""
    model = Functional()
    penalties = arspec_torch.attach(
        model, ar.Spec([rule(ar.L2(0.5), "**", "kernel"), rule(ar.L2(0.5), "hidden", "input")])
    )

    def total(x: torch.Tensor) -> torch.Tensor:
        model(x)
        return penalties.total()

    torch.testing.assert_close(torch.func.grad(total)(x), x / BATCH)
    torch.testing.assert_close(torch.func.jvp(total, (x,), (x,))[1], x.square().sum() / BATCH)


def test_deepcopy_is_independent(x: torch.Tensor) -> None:
    model = sequential()
    penalties = arspec_torch.attach(model, one("0", "kernel"))
    model(x)
    penalties.total()
    twin, twins = copy.deepcopy((model, penalties))
    with torch.no_grad():
        twin[0].weight.mul_(2)
    twin(x)
    assert twins.total().item() == reference(twin[0].weight) != penalties.total().item()


def test_second_order_through_a_model(x: torch.Tensor) -> None:
    model = sequential().double()
    penalties = arspec_torch.attach(model, ar.Spec([rule(ar.L2(0.5), "0", "pre_activation", mean_over="sum")]))
    model(x.double())
    (first,) = torch.autograd.grad(penalties.total(), model[0].weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), model[0].weight)
    expected = x.double().T @ x.double().sum(1)  # d/dW Σ_ij (Wxᵀ)_ij x_jk, the same for every row
    torch.testing.assert_close(second, expected.repeat(WIDTH, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_curvature_of_l2_is_there_at_exactly_zero(dtype: torch.dtype) -> None:
    """Units that a ReLU has switched off hold exact zeros."""
    x = torch.tensor([0.0, -0.0, 1.0], dtype=dtype)

    def penalty(x: torch.Tensor) -> torch.Tensor:
        return arspec_torch.value(ar.L2(0.5), x)

    for hessian in (torch.func.hessian(penalty)(x), torch.autograd.functional.hessian(penalty, x)):
        assert torch.equal(hessian, torch.eye(3, dtype=dtype))


def test_sites_print_as_a_table(x: torch.Tensor) -> None:
    model = sequential()
    penalties = arspec_torch.attach(model, one("0", "output"))
    assert "output/sum  0      1()     -      batch      -" in repr(penalties)
    model(x)
    assert "5×7" in repr(penalties.sites)


def test_model_must_be_a_module() -> None:
    with pytest.raises(ar.SpecError, match=r"expected a torch\.nn\.Module"):
        arspec_torch.attach(lambda x: x, one("0", "output"))
    with pytest.raises(ar.SpecError, match=r"spec=\{\}; expected a Spec"):
        arspec_torch.attach(sequential(), {})
