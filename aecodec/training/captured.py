"""A run on a GPU whose step is recorded once and then replayed, as a CUDA graph.

A step of the probability model is some five thousand small operations. Started one by one from
Python they take almost twice as long as the GPU needs for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aecodec.training.model import Codec
from aecodec.training.part import PartRun, Pool

WARM_UP = 5  # steps before the one that is recorded, in which libraries choose their algorithms


class CapturedRun(PartRun):
    """As `PartRun`; the loss may not depend on values that only the GPU knows."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        device = self.model.s.device
        self.share: Tensor = torch.ones((), device=device)
        for group in self.optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.tensor(group["base_lr"], device=device)
        for state in self.optimizer.state.values():  # of a run that goes on
            state["step"] = state["step"].to(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm, self._stream = 0, torch.cuda.Stream(device)
        self._batch: tuple[Tensor, ...] = ()
        self._value = torch.zeros((), device=device)

    def _set_rates(self, rate: float, share: float) -> None:
        self.share.fill_(share)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["base_lr"] * rate)

    def _learn(self, loss: Callable[[Codec, Pool], Tensor], batch: Pool) -> Tensor:
        if self._warm < WARM_UP:
            self._warm += 1
            return self._beside(loss, batch)
        if self._graph is None:
            self._record(loss, batch)
        assert self._graph is not None
        for mine, new in zip(self._batch, batch, strict=True):
            mine.copy_(new)
        self._graph.replay()
        return self._value

    def _beside(self, loss: Callable[[Codec, Pool], Tensor], batch: Pool) -> Tensor:
        """A step as it is, on a stream of its own: what is recorded has to start clean."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            value = super()._learn(loss, batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return value

    def _record(self, loss: Callable[[Codec, Pool], Tensor], batch: Pool) -> None:
        self._batch = tuple(column.clone() for column in batch)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._value = super()._learn(loss, type(batch)(*self._batch))
        self._graph = graph
