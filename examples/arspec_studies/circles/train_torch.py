"""Two circles in PyTorch: an ordinary module, regularized by `attach`, trained for many seeds at once.

python -m arspec_studies.circles.train_torch --seeds 3 --epochs 400
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import binary_cross_entropy_with_logits

import arspec
import arspec_torch
from arspec_studies._study.torch_fit import begin_step
from arspec_studies.circles import worker
from arspec_studies.circles.data import HIDDEN, LEARNING_RATE, Circles


class Network(nn.Module):
    """2–500–1 with a ReLU; returns logits of shape (points,)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, HIDDEN)
        self.activation = nn.ReLU()
        self.output = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.activation(self.hidden(x))).squeeze(-1)


def train(spec: arspec.Spec, data: Circles, weights: worker.Weights, epochs: list[int]) -> Iterator[worker.Weights]:
    """Train one network per seed; yield the weights of all of them at each of `epochs`."""
    model = Network()
    regularization = arspec_torch.attach(model, spec)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        logits = functional_call(model, parameters, (x,))
        return binary_cross_entropy_with_logits(logits, y) + regularization.total()

    parameters = to_torch(weights)
    optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE)
    for epoch in range(1, epochs[-1] + 1):
        begin_step(optimizer, epoch - 1)
        torch.vmap(loss)(parameters).sum().backward()
        optimizer.step()
        if epoch in epochs:
            yield to_numpy(parameters)


# torch keeps a kernel as (output, input); the study, like Keras, as (input, output).


def to_torch(weights: worker.Weights) -> dict[str, Tensor]:
    """Return parameters by torch's names; a leading axis of seeds is kept."""
    parameters = {}
    for name, array in weights.items():
        layer, role = name.split("/")
        tensor = torch.from_numpy(array.swapaxes(-1, -2).copy() if role == "kernel" else array.copy())
        parameters[f"{layer}.{'weight' if role == 'kernel' else role}"] = tensor.requires_grad_()
    return parameters


def to_numpy(parameters: dict[str, Tensor]) -> worker.Weights:
    """Return the inverse of `to_torch`."""
    weights = {}
    for name, tensor in parameters.items():
        layer, role = name.split(".")
        array = tensor.detach().numpy().copy()
        weights[f"{layer}/kernel" if role == "weight" else f"{layer}/{role}"] = (
            array.swapaxes(-1, -2) if role == "weight" else array
        )
    return weights


def penalty_and_gradients(
    spec: arspec.Spec, weights: worker.Weights, x: np.ndarray
) -> tuple[np.ndarray, worker.Weights]:
    """Return the penalty of the model on x and its gradient with respect to each parameter."""
    model = Network()
    model.load_state_dict(to_torch(weights))
    regularization = arspec_torch.attach(model, spec)
    model(torch.from_numpy(x))
    penalty = regularization.total()
    penalty.backward()
    parameters = dict(model.named_parameters())
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
    return penalty.detach().numpy(), to_numpy(gradients)


def value_and_gradient(penalty: object, tensor: np.ndarray, mean_over: object) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient of the penalty of a given tensor."""
    given = torch.from_numpy(tensor.copy()).requires_grad_()
    value = arspec_torch.value(penalty, given, mean_over=mean_over)
    value.backward()
    return value.detach().numpy(), given.grad.numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker.main(worker.Study("torch", ("torch",), train, penalty_and_gradients, value_and_gradient))
