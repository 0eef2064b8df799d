"""Entry point of ``python -m aecodec.bench``."""

from __future__ import annotations

from aecodec.bench.cli import bench

if __name__ == "__main__":
    bench(prog_name="python -m aecodec.bench")
