"""Models of `transformers`, built from a configuration with random weights, regularized in three lines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

import arspec as ar
import arspec_torch

TOKENS = torch.tensor([[5, 17, 2, 96, 31], [8, 8, 0, 44, 3], [60, 1, 12, 9, 70]])
GPT2 = GPT2Config(n_embd=24, n_layer=2, n_head=3, vocab_size=97, n_positions=19, bos_token_id=0, eos_token_id=0)
# Sums of float32 terms by hand, of at most 5000 terms each, against float64.
BY_HAND = 5000 * 2.0**-24


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def bert() -> BertModel:
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=97,
        max_position_embeddings=17,
    )  # fmt: skip
    return BertModel(config).eval()


def test_bert_in_three_lines() -> None:
    model = bert()
    sparse = ar.Rule(ar.L1(1e-2), layer="encoder/layer/*/intermediate/dense", placement="pre_activation")
    regularization = arspec_torch.attach(model, ar.Spec([ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"), sparse]))
    loss = model(TOKENS).last_hidden_state.square().mean() + regularization.total()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}

    plain = bert()
    plain.load_state_dict(model.state_dict())
    captured: list[Any] = []
    layers: Any = plain.encoder.layer
    for layer in layers:
        layer.intermediate.dense.register_forward_hook(lambda _module, _inputs, output: captured.append(output))
    by_hand = plain(TOKENS).last_hidden_state.square().mean()
    by_hand = by_hand + sum(1e-2 * h.abs().sum() / len(h) for h in captured)
    kernels = [m.weight for m in plain.modules() if isinstance(m, torch.nn.Linear)]
    by_hand = by_hand + sum(1e-3 * w.square().sum() for w in kernels)
    by_hand.backward()
    assert len(captured) == 2
    assert len(kernels) == 13
    assert len(regularization.sites) == 13 + 2
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
    compared = 0
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            gradient = found[name]
            assert gradient is not None
            room = BY_HAND * float(parameter.grad.abs().max())
            np.testing.assert_allclose(gradient.numpy(), parameter.grad.numpy(), rtol=0.0, atol=room, err_msg=name)
            compared += 1
    assert compared > 30


def test_a_language_model_with_labels() -> None:
    model = GPT2LMHeadModel(GPT2)
    spec = ar.Spec([ar.Rule(ar.L1(1e-3), layer="transformer/h/*/mlp/act", placement="output")])
    regularization = arspec_torch.attach(model, spec)
    output = model(TOKENS, labels=TOKENS)
    (output.loss + regularization.total()).backward()
    assert len(regularization.losses()) == 2
    assert all(loss.item() > 0 for loss in regularization.losses().values())


def test_a_layer_of_their_own_is_told_apart() -> None:
    rule = ar.Rule(ar.GroupLasso(1e-3, norm_over=("input",)), layer="transformer/h/*/mlp/c_fc", placement="kernel")
    model: Any = GPT2LMHeadModel(GPT2)
    with pytest.raises(ar.UnsupportedError, match=r"Conv1D.*roles=.Conv1D: ."):
        arspec_torch.attach(model, ar.Spec([rule]))
    roles: dict[type[torch.nn.Module], dict[str, str]] = {
        Conv1D: {"weight": "kernel: input output", "bias": "bias: output"}
    }
    regularization = arspec_torch.attach(model, ar.Spec([rule]), roles=roles)
    model(TOKENS)
    expected = 0.0
    for block in model.transformer.h:
        weight = block.mlp.c_fc.weight.detach().numpy().astype(np.float64)
        expected += 1e-3 * np.sqrt((weight**2).sum(0)).sum()
    assert regularization.total().item() == pytest.approx(expected, rel=1e-6)
