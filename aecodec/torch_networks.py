"""The networks in PyTorch, for machines with a CUDA device; symbols equal to every other runtime.

The same functions as the ONNX graphs that coding needs, on the same tensors, so a file does not
depend on which of the two wrote it. The exact networks are computed in float64 by default:
their integers fit, and none of PyTorch's switches that trade precision for speed (TF32,
`set_float32_matmul_precision`, autocast) applies to float64. They use matrix products and
shifted sums only, so no convolution library can pick a Winograd or FFT algorithm for them.

What the encoder's search runs backwards stays with ONNX Runtime on the CPU.

PyTorch is imported when the first object is made: it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.eight_bits import EightBitFilter, EightBitPrior
from aecodec.prior import STEP_PHASES
from aecodec.torch_predictor import TorchPredictor, lapped, parts_of, whole_of
from aecodec.transforms import BACKWARD_GRAPHS, OnnxNetworks
from aecodec.weights import STORE

Float = npt.NDArray[np.float32]
Tensor = Any  # torch.Tensor, which is not imported here
ACTIVATION_LIMIT = 16.0
EXACT_MIN, EXACT_MAX = -1024.0, 1023.0


class TorchNetworks(OnnxNetworks):
    """The networks of one model folder on a PyTorch device. Safe to use from several threads.

    exact_dtype: what the exact networks compute in. "float32" gives the same integers as long
    as the process leaves float32 products alone (no TF32, no bfloat16). convolution: lets
    PyTorch's convolutions compute the exact layers (they may go to oneDNN or cuDNN), in
    channels_last layout if asked for. Both are for tests and comparisons.
    """

    def __init__(
        self,
        folder: Path,
        vectors: Mapping[str, Float],
        device: str = "cuda",
        *,
        exact_dtype: str = "float64",
        convolution: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__(folder, vectors)
        import torch

        self._torch, self._device = torch, device
        self._exact_dtype = getattr(torch, exact_dtype)
        self._convolution, self._channels_last = convolution, channels_last
        self._tensors: dict[tuple[str, Any], Tensor] = {}
        self._backward = OnnxNetworks(folder, vectors)

    def close(self) -> None:
        """As there; tensors stay."""
        self._backward.close()

    def open(self, name: str) -> None:
        """Tensors are read when they are first used."""

    def _run(self, name: str, **inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        torch = self._torch
        if name.startswith(BACKWARD_GRAPHS):
            return self._backward._run(name, **inputs)
        # autocast also lowers float32 products that stand outside of modules
        with torch.inference_mode(), torch.autocast(self._device, enabled=False):
            arguments = {
                key: torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
                for key, value in inputs.items()
            }
            if name[-1].isdigit():  # the number of a band of quality, or of a step
                name, _, number = name.partition("_")
                arguments["number"] = int(number)
            function: Callable[..., list[Tensor]] = getattr(self, f"_graph_{name}")
            return [tensor.cpu().numpy() for tensor in function(**arguments)]

    def _tensor(self, name: str, dtype: Any) -> Tensor:
        """A tensor of the model on the device; read on first use (safe to race: equal values)."""
        tensor = self._tensors.get((name, dtype))
        if tensor is None:
            from safetensors import safe_open

            with safe_open(self._folder / STORE, "pt") as store:
                tensor = store.get_tensor(name).to(self._device, dtype)
            self._tensors[name, dtype] = tensor
        return tensor

    # The exact networks: integers held in floating point.

    def _exact(
        self, x: Tensor, name: str, kind: str, residual: Tensor = None, rows: slice = slice(None)
    ) -> Tensor:
        """floor((W a + b) * 2^-shift), plus a residual, clipped; the half is in the bias.

        rows: which outputs to compute.
        """
        torch = self._torch
        weight, bias, multiplier = (
            self._tensor(f"{name}.{part}", self._exact_dtype)
            for part in ("weight", "bias", "multiplier")
        )
        weight, bias, multiplier = weight[rows], bias[rows], multiplier[rows]
        out = torch.floor(self._sums(x, weight, bias) * multiplier[:, None, None])
        if residual is not None:
            out = out + residual
        if kind == "out":
            return out
        return out.clamp(0.0 if kind == "relu" else EXACT_MIN, EXACT_MAX)

    def _sums(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self._convolution:
            return self._convolve(x, weight, bias)
        if weight.dim() == 2:
            return self._multiply(x, weight, bias)
        return self._shifted_sum(x, weight, bias)

    def _exact_block(self, x: Tensor, name: str) -> Tensor:
        a = self._exact(self._exact(x, f"{name}.w1", "relu"), f"{name}.dw", "sum")
        x = self._exact(a, f"{name}.w2", "sum", x)
        return self._exact(self._exact(x, f"{name}.w3", "relu"), f"{name}.w4", "sum", x)

    def _enter(self, x: Tensor) -> Tensor:
        x = x.to(self._exact_dtype)
        if self._channels_last:
            x = x.contiguous(memory_format=self._torch.channels_last)
        return x

    def _graph_hyper_synthesis(self, z: Tensor) -> list[Tensor]:
        shuffle = self._torch.pixel_shuffle
        a = self._exact_block(self._exact(self._enter(z), "h_s.stem", "sum"), "h_s.block1")
        a = shuffle(self._exact(a, "h_s.up1", "sum"), 2)
        a = shuffle(self._exact(self._exact_block(a, "h_s.block2"), "h_s.up2", "sum"), 2)
        return [a.float()]

    def _graph_prior(self, step: Tensor, context: Tensor, common: Tensor) -> list[Tensor]:
        k = int(step)
        a = self._torch.cat([context, common], 1)
        prior = EightBitPrior(self._torch, self._exact_tensor, self._sums)
        a = prior.run(self._enter(a), k, self._count("prior.blocks"))
        return [self._quarters(a, f"prior.{name}", k) for name in ("mean", "scale")]

    def _graph_predictor(
        self, number: int, latent: Tensor, mean: Tensor, offset: Tensor
    ) -> list[Tensor]:
        predictor = TorchPredictor(self._torch, self._exact_tensor, self._sums, self._exact, number)
        own, dtype = f"predictor.{number}", self._exact_dtype
        layers, blocks = self._count(f"{own}.layers", "weight"), self._count(f"{own}.blocks")
        latent, mean, offset = self._enter(latent), mean.to(dtype), offset.to(dtype)
        return [predictor.run(latent, mean, offset, layers, blocks).float()]

    def _exact_tensor(self, name: str) -> Tensor:
        return self._tensor(name, self._exact_dtype)

    def _quarters(self, a: Tensor, name: str, step: int) -> Tensor:
        """The last layer where the step codes something: (1,W,h,w) -> (4,M/4,h/2 * w/2)."""
        out = []
        for quarter, phase in enumerate(STEP_PHASES[step]):
            cells = a[:, :, phase // 2 :: 2, phase % 2 :: 2]
            out.append(self._exact(cells, name, "out", rows=slice(quarter, None, 4)))
        return self._torch.cat(out).flatten(2).float()

    # The floating-point networks.

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """1x1 convolution, after unshuffling by `stride`."""
        float32 = self._torch.float32
        if stride > 1:
            x = self._torch.pixel_unshuffle(x, stride)
        weight, bias = (self._tensor(f"{name}.{part}", float32) for part in ("weight", "bias"))
        return self._multiply(x, weight, bias)

    def _block(self, x: Tensor, name: str) -> Tensor:
        leaky_relu, float32 = self._torch.nn.functional.leaky_relu, self._torch.float32
        a = leaky_relu(self._conv(x, f"{name}.w1"), 0.1)
        weight, bias = (self._tensor(f"{name}.dw.{part}", float32) for part in ("weight", "bias"))
        x = x + self._conv(self._convolve(a, weight, bias), f"{name}.w2")
        return x + self._conv(leaky_relu(self._conv(x, f"{name}.w3"), 0.1), f"{name}.w4")

    def _blocks(self, x: Tensor, name: str) -> Tensor:
        for i in range(self._count(name)):
            x = self._block(x, f"{name}.{i}")
        return x

    def _graph_analysis(
        self, x: Tensor, q_a8: Tensor = None, q_a16: Tensor = None,
        turn: Tensor = None, shift: Tensor = None,
    ) -> list[Tensor]:  # fmt: skip
        float32, unshuffle = self._torch.float32, self._torch.pixel_unshuffle
        x = x.float() - 128.0
        if turn is not None:
            x = self._multiply(x, turn, shift[:, 0])
        u = self._multiply(
            unshuffle(self._lap(x, transposed=False), 16), self._tensor("linear_a", float32), None
        )
        u = u * self._tensor("s_inverse", float32)[:, None, None]
        if q_a8 is not None:
            a = self._blocks(self._conv(x * (1 / 64), "g_a.stem", 8) * q_a8, "g_a.blocks8")
            a = self._blocks(self._conv(a, "g_a.down", 2) * q_a16, "g_a.blocks16")
            u = u + self._conv(a, "g_a.head")
        return [u]

    def _graph_turned_analysis(self, **inputs: Tensor) -> list[Tensor]:
        return self._graph_analysis(**inputs)

    def _graph_hyper_analysis(self, u: Tensor, q_h: Tensor, q_z: Tensor) -> list[Tensor]:
        u = u.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        a = self._block(self._conv(u, "h_a.stem") * q_h, "h_a.block1")
        a = self._block(self._conv(a, "h_a.down1", 2), "h_a.block2")
        return [self._conv(a, "h_a.down2", 2) * q_z]

    def _graph_synthesis(self, **inputs: Tensor) -> list[Tensor]:
        return [parts_of(self._torch, self._x_hat(**inputs), 2).to(self._torch.uint8)]

    def _graph_turned(self, **inputs: Tensor) -> list[Tensor]:
        return self._graph_synthesis(**inputs)

    def _graph_tuned(self, **inputs: Tensor) -> list[Tensor]:
        return self._graph_synthesis(**inputs)

    def _x_hat(
        self, number: int, y_hat: Tensor, q_filter: Tensor,
        q_s8: Tensor = None, q_s16: Tensor = None,
        turn: Tensor = None, shift: Tensor = None, last_weight: Tensor = None,
    ) -> Tensor:  # fmt: skip
        """The picture (1,3,H,W), rounded to levels but not yet converted; number: of the band."""
        torch = self._torch
        weight, offset = (
            self._tensor(name, torch.float32) for name in ("linear_s", "linear_offset")
        )
        x_hat = torch.pixel_shuffle(self._multiply(y_hat, weight, offset), 16)
        x_hat = self._lap(x_hat, transposed=True)
        if q_s8 is not None:
            x_hat = x_hat + self._synthesis_network(y_hat, q_s8, q_s16)
        x_hat = x_hat + self._filter(x_hat, f"filter.{number}", q_filter, last_weight)
        if turn is not None:
            x_hat = self._multiply(x_hat - shift[:, :, None] * (1 / 64), turn.T, None)
        x_hat = x_hat * 64.0 + 128.0
        return torch.round(x_hat.clamp(0.0, 255.0))

    def _synthesis_network(self, y_hat: Tensor, q_s8: Tensor, q_s16: Tensor) -> Tensor:
        shuffle = self._torch.pixel_shuffle
        s_inverse = self._tensor("s_inverse", self._torch.float32)
        u_hat = y_hat * s_inverse[:, None, None]
        u_hat = u_hat.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        a = self._blocks(self._conv(u_hat, "g_s.stem") * q_s16, "g_s.blocks16")
        a = self._blocks(shuffle(self._conv(a, "g_s.up"), 2) * q_s8, "g_s.blocks8")
        return shuffle(self._conv(a, "g_s.head"), 8)

    def _lap(self, x: Tensor, transposed: bool) -> Tensor:
        matrix = self._tensor("overlap", self._torch.float32)
        return lapped(self._torch, x, matrix.T if transposed else matrix)

    def _filter(self, x: Tensor, own: str, quality: Tensor, last_weight: Tensor = None) -> Tensor:
        """The residual 3x3 convolutions at half resolution; own: name of the band's tensors.

        last_weight: in place of the last one's own, if not None.
        """
        torch = self._torch
        a = self._conv3(parts_of(torch, x, 2), f"{own}.first") * quality
        a = torch.nn.functional.leaky_relu(a, 0.1)
        names = [f"{own}.layers.{i}" for i in range(self._count(f"{own}.layers", "weight"))]
        blocks = [f"{own}.blocks.{i}" for i in range(self._count(f"{own}.blocks"))]
        last = f"{own}.last"
        in_eight = self._has(f"{last}.weight_scale")
        if self._has(f"{own}.points"):
            eight = EightBitFilter(torch, self._tensor, own)
            a = eight.run(a, names, blocks, last if in_eight else "", last_weight)
        else:
            slope = float(self._tensor(f"{own}.slope", torch.float32))
            for name in names:
                a = torch.nn.functional.leaky_relu(self._conv3(a, name), slope)
            for name in blocks:
                b = torch.nn.functional.leaky_relu(self._conv3(a, f"{name}.w1"), slope)
                a = a + self._conv3(b, f"{name}.w2")
        return whole_of(torch, a if in_eight else self._conv3(a, last), 2)

    def _conv3(self, a: Tensor, name: str) -> Tensor:
        weight, bias = (
            self._tensor(f"{name}.{part}", self._torch.float32) for part in ("weight", "bias")
        )
        return self._torch.nn.functional.conv2d(a, weight, bias, padding=1)

    # Arithmetic.

    def _has(self, name: str) -> bool:
        """Whether the model has a tensor of that name."""
        if not hasattr(self, "_names"):
            from safetensors import safe_open

            with safe_open(self._folder / STORE, "np") as store:
                self._names = set(store.keys())
        return name in self._names

    def _count(self, prefix: str, tensor: str = "w1.weight") -> int:
        """Number of blocks of a stack, from the names of its tensors."""
        i = 0
        while self._has(f"{prefix}.{i}.{tensor}"):
            i += 1
        return i

    def _multiply(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """1x1 convolution of (1,C,h,w) as one matrix product."""
        out = weight @ x.flatten(2)
        if bias is not None:
            out = out + bias[:, None]
        return out.reshape(1, weight.shape[0], *x.shape[2:])

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """1x1, depthwise or full convolution as PyTorch does it."""
        conv2d = self._torch.nn.functional.conv2d
        if weight.dim() == 2:
            return conv2d(x, weight[:, :, None, None], bias)
        groups = len(weight) if weight.shape[1] == 1 else 1
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)

    def _shifted_sum(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Depthwise or full convolution with zero padding as multiply-adds."""
        h, w = x.shape[2:]
        side = weight.shape[-1]
        padded = self._torch.nn.functional.pad(x, (side // 2,) * 4)
        out = bias[:, None, None].expand(1, -1, h, w).clone()
        for i in range(side):
            for j in range(side):
                part = padded[:, :, i : i + h, j : j + w]
                if weight.shape[1] == 1:
                    out += weight[:, 0, i, j, None, None] * part
                else:
                    out += (weight[:, :, i, j] @ part.flatten(2)).reshape(out.shape)
        return out
