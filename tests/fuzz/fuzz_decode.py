"""Coverage-guided fuzzing of the decoder with atheris (pip install atheris).

    python tests/fuzz/fuzz_decode.py --corpus DIR     write the seed corpus
    python tests/fuzz/fuzz_decode.py DIR [options of libFuzzer, such as -max_total_time=60]

Inputs have their checksums made right before they are decoded, so that a change behind one is
not stopped by it. Only AecError may come out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

with atheris.instrument_imports(include=["aecodec"]):
    import fuzz

    from aecodec.errors import AecError


def one_input(data: bytes) -> None:
    """Container first; to pixels when that stands."""
    for candidate in (data, fuzz.resealed(data)):
        try:
            fuzz.read_container(candidate)
            fuzz.decode(candidate)
        except AecError:
            continue


def write_corpus(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(fuzz.seeds()):
        (folder / f"seed{index:02}.aec").write_bytes(data)


def main() -> None:
    if "--corpus" in sys.argv:
        write_corpus(Path(sys.argv[-1]))
        return
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
