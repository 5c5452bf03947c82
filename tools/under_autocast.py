"""PyTorch models on a CUDA device that need not be there: what the dispatcher does with them under autocast("cuda").

Tensors are fake: they have the device, the type, the shape and the dispatch keys of CUDA tensors, and no data. So the
dispatcher goes through its own autocast kernels, as it does on a GPU, and the types are its own.
"""
import contextlib
import copy
import io

import onnx
import onnx_ir
import torch
import torch.cuda.amp.common
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.onnx._internal.fx.passes import type_promotion


# autocast("cuda") switches itself off where there is no CUDA, also when the exporter runs a region again: it is not told.
torch.cuda.amp.common.amp_definitely_not_available = lambda: False


class Trace(type_promotion._OpTraceDispatchMode):
    """The exporter's, which takes the first operator for the one it ran: fake tensors ask for their device before."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return func(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


type_promotion._OpTraceDispatchMode = Trace


def in_fp32(function):
    """An interpolation. Its form for scales is made of an operator of the fp32 list eagerly; the exporter keeps it as one
    operator that is in no list, so what the list does is done here."""
    return lambda x, *rest: function(x.float() if torch.is_autocast_enabled("cuda") else x, *rest)


for name in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d", "bicubic2d"):
    setattr(torch._C._nn, "upsample_" + name, in_fp32(getattr(torch._C._nn, "upsample_" + name)))


def fake(mode, tensor):
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


def on_fake_cuda(mode, model):
    """A copy of the model whose parameters and buffers are fake CUDA tensors; tied ones stay one."""
    result, made = copy.deepcopy(model), {}

    def moved(tensor):
        if id(tensor) not in made:
            made[id(tensor)] = (tensor, fake(mode, tensor))
        return made[id(tensor)][1]

    parameters = {}
    for module in result.modules():
        for key, p in module._parameters.items():
            if p is not None:
                module._parameters[key] = parameters.setdefault(
                    id(p), torch.nn.Parameter(moved(p), requires_grad=p.requires_grad))
        for key, b in module._buffers.items():
            if b is not None:
                module._buffers[key] = moved(b)
        module._flat_weights = [module._parameters[k] for k in module._flat_weights_names] if isinstance(
            module, torch.nn.RNNBase) else None
        if module._flat_weights is None:
            del module._flat_weights
    return result


class Cast(torch.nn.Module):
    """A model that is run under autocast, or as it is."""

    def __init__(self, model, low):
        super().__init__()
        self.model, self.low = model, low

    def forward(self, *inputs):
        with torch.autocast("cuda", self.low) if self.low else contextlib.nullcontext():
            return self.model(*inputs)


def exported(model, inputs, low=torch.float16, opset=20, optimize=False):
    """The file that PyTorch's default exporter writes of it: an onnx.ModelProto."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    moved, arguments = on_fake_cuda(mode, model), tuple(fake(mode, x) for x in inputs)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), mode:
        program = torch.export.export(Cast(moved, low), arguments, strict=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        written = torch.onnx.export(program, (), None, dynamo=True, optimize=False, opset_version=opset, verbose=False)
    values = {name: t.detach() for name, t in (*model.named_parameters(remove_duplicate=False),
                                               *model.named_buffers(remove_duplicate=False))}
    for value in written.model.graph.initializers.values():
        tensor = getattr(value.const_value, "raw", None)
        if isinstance(tensor, torch._subclasses.fake_tensor.FakeTensor):
            value.const_value = onnx_ir.tensor(values[value.name.removeprefix("model.")].numpy(), name=value.name)
    if optimize:
        written.optimize()
    return onnx_ir.serde.serialize_model(written.model)
