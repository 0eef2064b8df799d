"""The networks on a runtime: g_a, h_a, h_s, prior, g_s as ONNX graphs on ONNX Runtime.

A session is opened when it is first needed, so decompressing never loads the encoder. All
arrays are NumPy float32, (channels, height, width) without a batch axis unless said.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec import arena
from aecodec.errors import ModelError

Float = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
EXACT_GRAPHS = ("hyper_synthesis", "prior", "predictor")
# For the encoder's search.
BACKWARD_GRAPHS = ("correction", "prior_slope", "hyper_slope", "fitting")
SMALLEST = "hyper_synthesis"  # a graph that every use of a model opens
MAX_QUALITY = 10000  # hundredths
UNTURNED = {"turn": np.eye(3, dtype=np.float32), "shift": np.zeros((3, 1), np.float32)}


def default_threads() -> int:
    """Threads of a runtime: AECODEC_THREADS, else the cores this process may use."""
    setting = os.environ.get("AECODEC_THREADS", "")
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OnnxNetworks:
    """The graphs of one model folder. Safe to use from several threads.

    vectors: the quality vectors of the float networks, each (rows, channels), rows evenly
    spaced over quality 0..100. There is one q_filter, and one graph of the synthesis, for each
    band of quality: its width is the same for all.
    """

    def __init__(
        self,
        folder: Path,
        vectors: Mapping[str, Float],
        threads: int = 0,
        *,
        optimise: bool = True,
        cuda: bool = False,
    ) -> None:
        self._folder, self._vectors = folder, vectors
        self._threads = threads or default_threads()
        self._optimise, self._cuda = optimise, cuda
        self._axes: dict[str, Float] = {}  # of colour: rotation "turn", and "shift" after it
        self._last: dict[str, Array] = {}  # "last_weight" of a filter that is tuned to a picture
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def turned(self, turn: Float, shift: Float) -> OnnxNetworks:
        """The same networks for colours x - 128 that become turn (3,3) times x, plus shift (3,1).

        Graphs are shared. Pictures go in and come out as they are: g_s turns colours back.
        """
        other = copy.copy(self)
        other._axes = {"turn": turn, "shift": shift}
        return other

    def tuned(self, weight: npt.NDArray[np.int8]) -> OnnxNetworks:
        """The same networks with other weights (12,F,3,3) in the filter's last layer.

        Graphs are shared. Only `synthesis` asks for them, and all at one band of quality.
        """
        other = copy.copy(self)
        other._last = {"last_weight": weight}
        return other

    @property
    def can_tune(self) -> bool:
        """Whether the model has graphs for other weights in the filter's last layer."""
        return (self._folder / "tuned_0.onnx").is_file()

    @property
    def can_turn(self) -> bool:
        """Whether the model has graphs for turned colours: those of early exports do not."""
        return (self._folder / "turned_analysis.onnx").is_file()

    def open(self, name: str) -> None:
        """Load a graph now instead of on first use. Raises ModelError."""
        self._session(name)

    def close(self) -> None:
        """Give back the memory that graphs keep for their next run: much, after large tiles.

        They are opened again when they are needed.
        """
        with self._lock:
            last = self._sessions.get(SMALLEST)
            self._sessions.clear()  # in place: networks for turned colours share it
        if last is not None and arena.shares():
            import onnxruntime as ort

            channels = last.get_inputs()[0].shape[1]
            arena.shrink(ort, last, z=np.zeros((1, channels, 1, 1), np.float32))

    def _session(self, name: str) -> Any:
        session = self._sessions.get(name)
        if session is None:
            with self._lock:
                session = self._sessions.get(name)
                if session is None:
                    session = self._sessions[name] = self._open(name)
        return session

    def _open(self, name: str) -> Any:
        import onnxruntime as ort  # 0.1 s; `info` and Image.open never get here

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A plan of memory for each shape keeps a block for each: a third more at 100 megapixels,
        # and no faster.
        options.enable_mem_pattern = False
        arena.share(ort, options)
        # Threads spin inside a run (a tenth faster), but leave the cores alone between runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not self._optimise:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers: list[Any] = ["CPUExecutionProvider"]
        # The exact graphs stay on the CPU: cuDNN may choose algorithms that are not exact.
        if self._cuda and not name.startswith(EXACT_GRAPHS):
            settings = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}
            providers.insert(0, ("CUDAExecutionProvider", settings))
        try:
            session = ort.InferenceSession(
                str(self._folder / f"{name}.onnx"), options, providers=providers
            )
        except Exception as error:
            raise ModelError(
                f"{self._folder.name}/{name}.onnx cannot be loaded: {error}"
            ) from error
        if len(session.get_providers()) < len(providers):
            raise ModelError("device cuda: ONNX Runtime cannot use it (no device or driver)")
        return session

    def _run(self, name: str, **inputs: Array) -> list[Array]:
        outputs: list[Array] = self._session(name).run(None, inputs)
        return outputs

    def _vector(self, name: str, quality: int) -> Float:
        """Quality vector at a quality in hundredths, interpolated: (1,C,1,1)."""
        rows = self._vectors[name]
        t = quality / MAX_QUALITY * (len(rows) - 1)
        i = min(int(t), len(rows) - 2)
        v: Float = (rows[i] * (i + 1 - t) + rows[i + 1] * (t - i)).astype(np.float32)
        return v[None, :, None, None]

    def _given(self, names: tuple[str, ...], quality: int) -> dict[str, Float]:
        """Quality vectors of those names that the model has: not every model has every part."""
        return {name: self._vector(name, quality) for name in names if name in self._vectors}

    @property
    def analysis_follows_quality(self) -> bool:
        """Whether g_a has quality vectors: without, u is the same at every quality."""
        return "q_a8" in self._vectors or "q_a16" in self._vectors

    def inverse_gain(self, quality: int) -> Float:
        """(M,1,1): natural units of y per quantisation step, for reconstruction."""
        rows = self._vectors["log_inverse"]
        t = quality / MAX_QUALITY * (len(rows) - 1)
        i = min(int(t), len(rows) - 2)
        gain: Float = np.exp(rows[i] * (i + 1 - t) + rows[i + 1] * (t - i)).astype(np.float32)
        return gain[:, None, None]

    def analysis(self, x: npt.NDArray[np.uint8], quality: int) -> Float:
        """g_a: pixels (H,W,3), sides multiples of 64 -> u = y / s (M,H/16,W/16)."""
        planes = np.ascontiguousarray(x.transpose(2, 0, 1))[None]
        vectors = self._given(("q_a8", "q_a16"), quality)
        name = "turned_analysis" if self._axes else "analysis"
        u: Float = self._run(name, x=planes, **vectors, **self._axes)[0][0]
        return u

    def hyper_analysis(self, u: Float, quality: int) -> Float:
        """h_a: u (M,h,w) -> z (Z,h/4,w/4), not rounded."""
        vectors = self._given(("q_h", "q_z"), quality)
        z: Float = self._run("hyper_analysis", u=u[None], **vectors)[0][0]
        return z

    def hyper_synthesis(self, z: Float) -> Float:
        """h_s, exact: integers (1,Z,h/4,w/4) -> integers (1,W,h,w)."""
        return self._run("hyper_synthesis", z=z)[0]

    def prior(self, step: int, context: Float, common: Float) -> tuple[Float, Float]:
        """The prior network, exact: see `aecodec.prior.ExactNetworks`."""
        index = np.array(step, np.int64)
        mean, scale = self._run("prior", step=index, context=context, common=common)
        return mean, scale

    def predictor(self, step: int, latent: Float, mean: Float, offset: Array) -> Float:
        """The predictor, exact: see `aecodec.prior.ExactNetworks`."""
        return self._run(f"predictor_{step}", latent=latent, mean=mean, offset=offset)[0]

    def synthesis(self, y_hat: Float, quality: int) -> npt.NDArray[np.uint8]:
        """g_s: y_hat (M,h,w) in natural units -> pixels (16h,16w,3)."""
        axes = self._axes or (UNTURNED if self._last else {})
        vectors = self._synthesis_vectors(quality) | axes | self._last
        parts = self._run(self.synthesis_graph(quality), y_hat=y_hat[None], **vectors)[0][0]
        return _in_place(parts)

    def correction(
        self, y_hat: Float, x: npt.NDArray[np.uint8], counted: Float, quality: int
    ) -> tuple[npt.NDArray[np.uint8], Float]:
        """As `synthesis`, and what u (M,h,w) lacks for the pixels x (16h,16w,3) to come out.

        counted (16h,16w): 1 where an error counts, 0 where none does.
        """
        planes = np.ascontiguousarray(x.transpose(2, 0, 1))[None]
        axes = self._axes or (UNTURNED if self.can_turn else {})
        vectors = self._synthesis_vectors(quality) | axes
        parts, missing = self._run(
            f"correction_{self.band(quality)}",
            y_hat=y_hat[None], x=planes, counted=counted[None, None], **vectors,
        )  # fmt: skip
        return _in_place(parts[0]), missing[0]

    def fitting(
        self, y_hat: Float, quality: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """What `aecodec.moments` needs of y_hat (M,h,w), at half resolution.

        What the filter's last layer sees (8h,8w,F), and the parts (12,8h,8w) of the picture.
        """
        vectors = self._synthesis_vectors(quality) | (self._axes or UNTURNED)
        parts, seen = self._run(f"fitting_{self.band(quality)}", y_hat=y_hat[None], **vectors)
        return seen[0], parts[0]

    def prior_slope(
        self, step: int, context: Float, common: Float, by_mean: Float, by_scale: Float
    ) -> tuple[Float, Float]:
        """The prior backwards: derivatives by its outputs (4,M/4,h/2 * w/2) to those by its inputs.

        Gives (M,h,w) for the elements of the context and (1,W,h,w).
        """
        index = np.array(step, np.int64)
        given = {"context": context, "common": common, "by_mean": by_mean, "by_scale": by_scale}
        by_context, by_common = self._run("prior_slope", step=index, **given)
        return by_context[0], by_common

    def hyper_slope(self, z: Float, by_common: Float) -> Float:
        """h_s backwards: by_common (1,W,h,w) to derivatives (Z,h/4,w/4) by hyper-latents."""
        by_z: Float = self._run("hyper_slope", z=z, by_common=by_common)[0][0]
        return by_z

    def synthesis_graph(self, quality: int) -> str:
        """Name of the graph that synthesises at a quality."""
        name = "tuned" if self._last else "turned" if self._axes else "synthesis"
        return f"{name}_{self.band(quality)}"

    def _synthesis_vectors(self, quality: int) -> dict[str, Float]:
        q_filter = self._vector(f"q_filter.{self.band(quality)}", quality)
        return self._given(("q_s8", "q_s16"), quality) | {"q_filter": q_filter}

    def band(self, quality: int) -> int:
        """The band of quality, which has a filter of its own."""
        count = sum(name.startswith("q_filter.") for name in self._vectors)
        return min(quality * count // MAX_QUALITY, count - 1)


def _in_place(parts: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Parts (12,h,w), channel 3 (2 i + j) + c for row i and column j of 2x2, -> (2h,2w,3)."""
    h, w = parts.shape[1:]
    x_hat = np.empty((h, 2, w, 2, 3), np.uint8)
    for channel, plane in enumerate(parts):  # several times faster than one transpose
        position, colour = divmod(channel, 3)
        x_hat[:, position // 2, :, position % 2, colour] = plane
    return x_hat.reshape(2 * h, 2 * w, 3)
