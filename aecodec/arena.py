"""Working memory that the graphs of a process share.

ONNX Runtime gives every graph memory of its own and keeps what the largest run took for the next
one. The graphs of a codec run one after another, so a common pool does: a third less memory for
large pictures, and no slower. What a process keeps is given back with `shrink`.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

_owner: int | None = None  # the process whose graphs share


def share(ort: Any, options: Any) -> None:
    """Let a session with these options use the pool; ort: the module onnxruntime.

    Not in a forked child: another thread may have held the pool's lock when it was made. There a
    graph has memory of its own.
    """
    global _owner
    if _owner is None:
        kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
        info = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
        with contextlib.suppress(Exception):  # there is one: another thread's or library's
            ort.create_and_register_allocator(info, None)
        _owner = os.getpid()
    if shares():
        options.add_session_config_entry("session.use_env_allocators", "1")


def shares() -> bool:
    """Whether graphs that are opened now use the pool."""
    return _owner == os.getpid()


def shrink(ort: Any, session: Any, **inputs: Any) -> None:
    """Give back what no graph uses, after a small run of a session; if the pool is one that can."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with contextlib.suppress(Exception):
        session.run(None, inputs, options)
