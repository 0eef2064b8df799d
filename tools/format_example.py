"""Write the worked example of docs/format.md: a small file, byte by byte.

    python tools/format_example.py            # exit status 1 when the document is out of date
    python tools/format_example.py --update

The example stands for any model: its id and its payload are made up, so new weights leave it as
it is. Files that decode are in tests/golden.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aecodec import container  # noqa: E402 - found beside this folder
from aecodec.container import AecFile, ChunkType, Colour, Header, Tile  # noqa: E402
from aecodec.varint import pack_varint  # noqa: E402

DOCUMENT = ROOT / "docs" / "format.md"
BLOCK = re.compile(r"(?<=```hex\n).*?(?=```)", re.DOTALL)
EXAMPLE = AecFile(
    Header(bytes.fromhex("0a1b2c3d"), Colour.RGB, True, 300, 2, 7500),
    (Tile(0x1234, b"abc"),),
    alpha=b"\x00\xff",
    xmp=b"<x/>",
)
BODIES = {"XMP": "<x/>", "ALPHA": "method 0: level 255 everywhere"}


def fields(data: bytes) -> Iterator[tuple[int, str]]:
    """(bytes, meaning) of every field of the example, in order."""
    header, sizes = EXAMPLE.header, (EXAMPLE.header.width - 1, EXAMPLE.header.height - 1)
    yield 4, "magic"
    yield 1, f"version {container.VERSION}"
    yield 4, "model id"
    yield 1, "kind: RGB, alpha, one tile"
    yield len(pack_varint(sizes[0])), f"width - 1 = {sizes[0]}"
    yield len(pack_varint(sizes[1])), f"height - 1 = {sizes[1]}"
    yield len(pack_varint(header.quality)), f"quality {header.quality} hundredths"
    chunks = container.walk(data)
    yield 2, f"low half of the CRC-32 of the {chunks[0].offset - 2} bytes above"
    for chunk in chunks:
        if chunk.type == ChunkType.LAST_TILE:
            yield 1, "LAST TILE: up to the end of the file"
            yield 2, "checksum of the symbols"
            yield chunk.length - 2, "payload"
        else:
            yield 1, chunk.name
            yield len(pack_varint(chunk.length)), f"{chunk.length} bytes"
            yield chunk.length, BODIES[chunk.name]
        yield 4, "CRC-32 of the head and this chunk"


def dump() -> str:
    """The lines of the example: offset, bytes, meaning."""
    data, at, rows = container.write(EXAMPLE), 0, []
    for size, meaning in fields(data):
        rows.append(f"{at:02x}  {data[at : at + size].hex(' '):<11}  | {meaning}\n")
        at += size
    assert at == len(data)
    return "".join(rows)


def main() -> int:
    text = DOCUMENT.read_text(encoding="utf-8")
    updated = BLOCK.sub(lambda _: dump(), text, count=1)
    if "--update" in sys.argv[1:]:
        DOCUMENT.write_text(updated, encoding="utf-8")
        return 0
    if updated != text:
        print("docs/format.md is out of date: run tools/format_example.py --update")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
