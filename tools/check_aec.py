"""Check .aec files against docs/format.md, without the package: python check_aec.py FILE...

Prints the structure of each file, or one line that says which rule it breaks. Exit status 0 when
every file keeps the rules, 1 otherwise. Payloads are not decoded: that needs the model.
"""

from __future__ import annotations

import sys
import zlib

NAMES = {0x81: "ICC", 0x82: "EXIF", 0x83: "XMP", 0x55: "FILTER",
         1: "ALPHA", 2: "TILE", 0x7C: "LAST TILE"}  # fmt: skip


class Refused(Exception):
    """The file breaks a rule; the message says which."""


class Bytes:
    """A cursor over the file that never reads past its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise Refused(f"cut short: {count} bytes expected at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def varint(self, longest: int) -> int:
        start, value = self.at, 0
        while True:
            byte = self.number(1)
            value += (byte & 0x7F) << (7 * (self.at - start - 1))
            if byte < 0x80:
                break
            if self.at - start == longest:
                raise Refused(f"varint of more than {longest} bytes at byte {start}")
        if byte == 0 and self.at - start > 1:
            raise Refused(f"varint not canonical at byte {start}")
        return value


def check_head(file: Bytes, report: list[str]) -> tuple[int, bool, int, int, int]:
    """(tiles, alpha expected, width, height, CRC-32 of the whole head)."""
    if file.data[:4] != b"\x89AEC":
        raise Refused("not an .aec file")
    file.take(4)
    version = file.number(1)
    if version != 1:
        raise Refused(f"version {version} is not 1")
    model, kind = file.take(4).hex(), file.number(1)
    width, height, quality = file.varint(3) + 1, file.varint(3) + 1, file.varint(2)
    axes = file.take(6) if kind & 8 else b""
    if zlib.crc32(file.data[: file.at]) % 2**16 != file.number(2):
        raise Refused("check of the head does not match")
    colour, alpha, code = kind & 3, bool(kind & 4), kind >> 4
    if colour > 1 or code > 7:
        raise Refused(f"reserved value in kind 0x{kind:02x}")
    if axes and (colour != 1 or 128 in axes or not any(axes[:3])):
        raise Refused(f"axes {axes.hex()} not allowed")
    if width > 65535 or height > 65535 or quality > 10000:
        raise Refused(f"{width}x{height} at quality {quality / 100:g} is outside the limits")
    side = 64 << code if code else 65535
    if min(side, width) * min(side, height) > 2**22:
        raise Refused("a tile has more than 2^22 pixels")
    tiles = -(-width // side) * -(-height // side)
    if tiles * 8 > len(file.data) - file.at:
        raise Refused(f"{tiles} tiles do not fit in the {len(file.data) - file.at} bytes left")
    text = ("grey", "RGB")[colour] + " with alpha" * alpha + ", axes turned" * bool(axes)
    report.append(f"head: {width}x{height} {text}, quality {quality / 100:g}, model {model}")
    report.append(f"tiles: {tiles}" + (f" of side {side}" if code else ""))
    return tiles, alpha, width, height, zlib.crc32(file.data[: file.at])


def check_chunks(file: Bytes, report: list[str]) -> None:
    """Frame, order, number and checksums of all chunks up to the end of the file."""
    tiles, alpha, width, height, seed = check_head(file, report)
    seen: list[int] = []
    while file.at < len(file.data):
        start = file.at
        kind = file.number(1)
        left = len(file.data) - file.at
        body = file.take(max(left - 4, 0) if kind == 0x7C else file.varint(5))
        computed = zlib.crc32(file.data[start : file.at], seed)
        name = f"{NAMES.get(kind, f'type 0x{kind:02x}')} at byte {start}"
        if file.number(4) != computed:
            raise Refused(f"CRC-32 does not match: {name}")
        if kind < 0x80 and kind not in NAMES:
            raise Refused(f"unknown critical chunk: {name}")
        tile, done = kind in (2, 0x7C), seen.count(2)
        if not tile and kind in seen:
            raise Refused(f"repeated: {name}")
        if (not tile and (done or 1 in seen or (kind > 0x7F and 0x55 in seen))) or done == tiles:
            raise Refused(f"out of order: {name}")
        if tile and (kind == 0x7C) != (done + 1 == tiles):
            raise Refused(f"type of the last tile and number of tiles do not agree: {name}")
        if (kind == 1 and not alpha) or (tile and alpha and 1 not in seen):
            raise Refused(f"ALPHA chunk and kind do not agree: {name}")
        long = len(body) > 2**24 and kind not in (1, 2, 0x7C)
        if len(body) < (3 if tile else 11 if kind == 0x55 else 1) or long:
            raise Refused(f"length {len(body)} not allowed: {name}")
        if kind == 1:
            check_alpha(body, width, height)
        report.append(f"{name}: {len(body)} bytes" + f", symbols {body[1::-1].hex()}" * tile)
        seen.append(2 if tile else kind)
    if seen.count(2) != tiles:
        raise Refused(f"{seen.count(2)} of {tiles} tiles")


def check_alpha(body: bytes, width: int, height: int) -> None:
    """The plane inflates to the size of the picture and uses known filters."""
    if body[0] == 0 and len(body) == 2:
        return
    if body[0] != 1:
        raise Refused("alpha: unknown method")
    inflate, size = zlib.decompressobj(), height * (width + 1)
    try:
        rows = inflate.decompress(body[1:], size + 1)
    except zlib.error as error:
        raise Refused(f"alpha: {error}") from error
    if len(rows) != size or not inflate.eof or inflate.unused_data:
        raise Refused("alpha: does not inflate to the size of the picture")
    if max(rows[:: width + 1]) > 3:
        raise Refused("alpha: unknown filter")


def main(paths: list[str]) -> int:
    status = 0
    for path in paths:
        report: list[str] = []
        try:
            with open(path, "rb") as stream:
                check_chunks(Bytes(stream.read()), report)
        except (Refused, OSError) as error:
            print(f"{path}: refused: {error}", file=sys.stderr)
            status = 1
        else:
            print(f"{path}: ok", *report, sep="\n  ")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else "usage: check_aec.py FILE...")
