"""A growing ONNX graph, and the operations that the networks are made of.

Weights are not in graphs: they point into model.safetensors (ONNX external data), in
float16 for the floating-point networks and as int16 integers for the exact ones. Unshuffle
followed by a 1x1 convolution is one strided convolution with the same weights, reshaped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from aecodec.training.layers import GRID, LIMIT

Array = npt.NDArray[Any]
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators, for 8-bit sums
OPSET, IR_VERSION = 17, 8
TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
}
STORE = "model.safetensors"
EXACT_MIN, EXACT_MAX = -LIMIT * GRID, LIMIT * GRID - 1


class Graph:
    """A growing ONNX graph; methods add nodes and return the name of their output."""

    def __init__(self, name: str, offsets: dict[str, tuple[int, int]], store: dict[str, Array]):
        self.name, self.offsets, self.store = name, offsets, store
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, kind: int, shape: list[int | str]) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Array) -> str:
        """A small constant kept in the graph itself."""
        name = f"constant_{len(self.initializers)}"
        self.initializers[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def raw(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """A tensor of model.safetensors as it is, under another shape if wanted."""
        array = self.store[name]
        shape = array.shape if shape is None else shape
        if int(np.prod(shape)) != array.size:
            raise ValueError(f"{name}: {array.shape} is not {shape}")
        if name not in self.initializers:
            tensor = TensorProto(name=name, data_type=TYPES[str(array.dtype)], dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            offset, length = self.offsets[name]
            for key, value in (("location", STORE), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            self.initializers[name] = tensor
        return name

    def stored(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """A tensor of model.safetensors as float32."""
        raw = self.raw(name, shape)
        return (
            raw
            if self.store[name].dtype == np.float32
            else self.op("Cast", raw, to=TensorProto.FLOAT)
        )

    def clip(self, x: str, low: float, high: float) -> str:
        return self.op("Clip", x, self.scalar(low), self.scalar(high))

    def conv(self, x: str, name: str, stride: int = 1) -> str:
        """Floating-point convolution: 1x1, or unshuffle by `stride` and 1x1."""
        c_out, c_in = self.store[f"{name}.weight"].shape
        shape = (c_out, c_in // stride**2, stride, stride)
        weight = self.stored(f"{name}.weight", shape)
        kernel = [stride, stride]
        return self.op("Conv", x, weight, self.stored(f"{name}.bias"),
                       kernel_shape=kernel, strides=kernel)  # fmt: skip

    def depthwise(self, x: str, name: str) -> str:
        channels = self.store[f"{name}.weight"].shape[0]
        return self.op("Conv", x, self.stored(f"{name}.weight"), self.stored(f"{name}.bias"),
                       kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=channels)  # fmt: skip

    def conv3(self, x: str, name: str) -> str:
        """3x3 convolution with zero padding."""
        return self.op("Conv", x, self.stored(f"{name}.weight"), self.stored(f"{name}.bias"),
                       kernel_shape=[3, 3], pads=[1, 1, 1, 1])  # fmt: skip

    def block(self, x: str, name: str) -> str:
        a = self.op("LeakyRelu", self.conv(x, f"{name}.w1"), alpha=0.1)
        x = self.op("Add", x, self.conv(self.depthwise(a, f"{name}.dw"), f"{name}.w2"))
        a = self.op("LeakyRelu", self.conv(x, f"{name}.w3"), alpha=0.1)
        return self.op("Add", x, self.conv(a, f"{name}.w4"))

    def shuffle(self, x: str, factor: int) -> str:
        return self.op("DepthToSpace", x, blocksize=factor, mode="CRD")

    def exact(self, x: str, name: str, kind: str, residual: str = "") -> str:
        """Integer convolution: floor(acc * 2^-shift), add, clip; see `fake_fixed`."""
        weight = self.store[f"{name}.weight"]
        rows = len(weight)
        if weight.ndim == 4:
            shape = tuple(weight.shape)
            side = shape[-1]
            groups = rows if shape[1] == 1 else 1
            more = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4, "group": groups}
        else:
            shape = (*weight.shape, 1, 1)
            more = {"kernel_shape": [1, 1]}
        tensors = self.stored(f"{name}.weight", shape), self.stored(f"{name}.bias")
        out = self.op("Conv", x, *tensors, **more)
        out = self.op("Mul", out, self.stored(f"{name}.multiplier", (rows, 1, 1)))
        if kind == "out":
            return self.op("Floor", out)
        low = 0.0 if kind == "relu" else EXACT_MIN
        if residual:
            out = self.op("Add", self.op("Floor", out), residual)
            return self.clip(out, low, EXACT_MAX)
        # Before the floor, which changes nothing for whole ends: runtimes can then clip where
        # they convolve.
        return self.op("Floor", self.clip(out, low, EXACT_MAX))

    def exact_quarters(self, cells: str, name: str) -> str:
        """Integer 1x1 convolution of what one step codes: cells (4,C,n) -> (4,M/4,n).

        Row q of `cells` holds the positions at which the step codes channel quarter q.
        """
        rows, columns = self.store[f"{name}.weight"].shape
        parts = []
        for part, last in (("weight", columns), ("bias", 1), ("multiplier", 1)):
            shape = (rows // 4, 4, last)  # channel c is the c // 4th of quarter c mod 4
            tensor = self.stored(f"{name}.{part}", shape)
            parts.append(self.op("Transpose", tensor, perm=[1, 0, 2]))
        out = self.op("Add", self.op("MatMul", parts[0], cells), parts[1])
        return self.op("Floor", self.op("Mul", out, parts[2]))

    def exact_block(self, x: str, name: str, active: dict[str, str]) -> str:
        """A block of h_s; puts what its ReLUs give into `active`, by the layers before them."""
        active[f"{name}.w1"] = a = self.exact(x, f"{name}.w1", "relu")
        x = self.exact(self.exact(a, f"{name}.dw", "sum"), f"{name}.w2", "sum", x)
        active[f"{name}.w3"] = a = self.exact(x, f"{name}.w3", "relu")
        return self.exact(a, f"{name}.w4", "sum", x)

    def lap(self, x: str, matrix: Array, after: Callable[[str], str] = str) -> str:
        """Multiply the 16 samples astride every block edge of (1,3,H,W), rows then columns.

        after: what is then done with the products of either.
        """
        half, end = len(matrix) // 2, np.iinfo(np.int64).max
        for axis in (3, 2):
            first, inner, last = (
                self.op("Slice", x, *(self.constant(np.array([v], np.int64)) for v in (a, b, axis)))
                for a, b in ((0, half), (half, -half), (-half, end))
            )
            shape = self.op("Shape", inner)
            if axis == 3:  # rows: every 16 neighbours, whatever row they stand in
                parts = self.op("Reshape", inner, self.constant(np.array([0, 0, -1, 16])))
                parts = self.op("MatMul", parts, self.constant(np.ascontiguousarray(matrix.T)))
            else:
                parts = self.op("Reshape", inner, self.constant(np.array([1, -1, 16, 0])))
                parts = self.op("MatMul", self.constant(matrix), parts)
            inner = self.op("Reshape", after(parts), shape)
            x = self.op("Concat", first, inner, last, axis=axis)
        return x

    def model(self) -> bytes:
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values())
        )
        opset = [helper.make_opsetid("", OPSET)]
        if any(node.domain == CONTRIB for node in self.nodes):
            opset.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        model.producer_name = "aecodec"
        data: bytes = model.SerializeToString(deterministic=True)
        return data
