"""Flax Linen: `forward(variables, x, ...)`, with the options of `Module.apply`.

The layers of a compact module exist only while it runs, so they are known after the first
call: an interceptor names what each returns, and the parameters are found by their paths.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from arspec import SpecError
from arspec_jax._arguments import Recorder
from arspec_jax._flax_kinds import is_affine, is_closed, refusals
from arspec_jax._forward import Call
from arspec_jax._function import parameters_by_layer, role_parameters
from arspec_jax._parts import RESULT, Parameter, Part, joined
from arspec_jax._site import mark
from arspec_jax._trace import Trace


class LinenModel:
    """A Linen module, whose layers are known from its first call."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def known_parts(self) -> None:
        return None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        variables = args[0] if args else None
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise SpecError(
                f"forward takes the variables of the {type(self._module).__name__} first: "
                f"forward({{'params': ...}}, x); got {type(variables).__name__}."
            )
        modules: dict[str, Any] = {}
        recorder = Recorder(lambda args, kwargs: self._apply(modules, args, kwargs), (args, kwargs))

        def parts(_: Trace) -> Sequence[Part]:
            return _parts(modules, variables["params"])

        return Call(recorder.leaves, recorder.run, recorder.finish, parts)

    def _apply(self, modules: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def name_results(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            result = call(*args, **kwargs)
            path = joined(context.module.path)
            if not path or context.method_name != "__call__":
                return result
            modules[path] = context.module
            return mark(result, path, "pre_activation" if is_affine(context.module) else "output")

        with nn.intercept_methods(name_results):
            return self._module.apply(*args, **kwargs)


def _parts(modules: Mapping[str, Any], params: Any) -> list[Part]:
    arrays = parameters_by_layer(nn.unbox(params))
    closed = [path for path, module in modules.items() if is_closed(module)]
    paths = [
        path
        for path in sorted({*arrays, *modules}, key=lambda p: (p.count("/"), p))
        if not any(path.startswith(outer + "/") for outer in closed)
    ]
    return [_part(path, modules.get(path), arrays.get(path, {})) for path in paths]


def _part(path: str, module: Any, arrays: Mapping[str, Any]) -> Part:
    refused = dict(refusals(module)) if module is not None else {}
    parameters, odd = ({}, {}) if refused else role_parameters(path, arrays)
    parameters = {p: Parameter(_reader(one), one.axes) for p, one in parameters.items()}
    affine = module is not None and is_affine(module)
    results = RESULT if affine else ("output",) if module is not None else ()
    kind = "params" if module is None else type(module).__name__
    in_globs = affine or bool(parameters or odd or refused)
    return Part(
        *(path, kind, affine, results, parameters, {**odd, **refused}),
        in_globs=in_globs,
        is_custom=not affine and "kernel" in parameters,
    )


def _reader(parameter: Parameter) -> Any:
    return lambda variables, *_: parameter.read(nn.unbox(variables["params"]))
