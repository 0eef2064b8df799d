"""Check .aec files against docs/format.md, without the package: python check_aec.py FILE...

Prints the structure of each file, or the rule that it breaks (exit status 1). Nothing is decoded.
"""

import sys
import zlib

NAMES = {0x81: "ICC", 0x82: "EXIF", 0x83: "XMP", 0x55: "FILTER",
         1: "ALPHA", 2: "TILE", 0x7C: "LAST TILE"}  # fmt: skip


class Refused(Exception):
    """The file breaks a rule; the message says which."""


def refuse(*rules: tuple[object, str]) -> None:
    for broken, message in rules:
        if broken:
            raise Refused(message)


class Bytes:
    """A cursor over the file that never reads past its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        refuse((count > len(self.data) - self.at, f"cut short: {count} bytes due at {self.at}"))
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def varint(self, longest: int) -> int:
        start, value = self.at, 0
        for place in range(longest):
            byte = self.number(1)
            value += (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                refuse((place and not byte, f"varint not canonical at byte {start}"))
                return value
        raise Refused(f"varint of more than {longest} bytes at byte {start}")


def check_head(file: Bytes, report: list[str]) -> tuple[int, int, int, int, int, int]:
    """(tiles, their side, kind, width, height, CRC-32 of the whole head)."""
    refuse((file.data[:4] != b"\x89AEC", "not an .aec file"))
    refuse(((version := file.take(5)[4]) != 1, f"version {version} is not 1"))
    model, kind = file.take(4).hex(), file.number(1)
    width, height, quality = file.varint(3) + 1, file.varint(3) + 1, file.varint(2)
    axes = file.take(6) if kind & 8 else b""
    refuse((zlib.crc32(file.data[: file.at]) % 2**16 != file.number(2), "head: check differs"))
    colour, exact, alpha, code = kind & 1, kind & 2, bool(kind & 4), kind >> 4 & 7
    side = 64 << code if code else 65535
    tiles, left = -(-width // side) * -(-height // side), len(file.data) - file.at
    refuse(
        (exact and kind > 127, f"exact, and in parts: kind 0x{kind:02x}"),
        (axes and (exact or not colour or 128 in axes or not any(axes[:3])), f"axes {axes.hex()}"),
        (exact and (int(model, 16) or quality != 10000), "exact with a model or below quality 100"),
        (max(width, height) > 65535 or quality > 10000, f"{width}x{height}, {quality}: too much"),
        (min(side, width) * min(side, height) > 2**22, "a tile has more than 2^22 pixels"),
        (tiles * 8 > left, f"{tiles} tiles do not fit in the {left} bytes left"),
    )
    text = ("grey", "RGB")[colour] + " with alpha" * alpha + ", axes turned" * bool(axes)
    text += ", exact" * (exact // 2) + ", exact in parts" * (kind >> 7)
    report.append(f"head: {width}x{height} {text}, quality {quality / 100:g}, model {model}")
    report.append(f"tiles: {tiles}" + (f" of side {side}" if code else ""))
    return tiles, side, kind, width, height, zlib.crc32(file.data[: file.at])


def check_chunks(file: Bytes, report: list[str]) -> None:
    """Frame, order, number and checksums of all chunks up to the end of the file."""
    tiles, side, flags, width, height, seed = check_head(file, report)
    exact, alpha, seen = flags & 2, bool(flags & 4), list[int]()
    while file.at < len(file.data):
        start, kind = file.at, file.number(1)
        body = file.take(max(len(file.data) - file.at - 4, 0) if kind == 0x7C else file.varint(5))
        computed = zlib.crc32(file.data[start : file.at], seed)
        name = f"{NAMES.get(kind, f'type 0x{kind:02x}')} at byte {start}"
        tile, done = kind in (2, 0x7C), seen.count(2)
        late = not tile and (done or 1 in seen or (kind > 0x7F and 0x55 in seen))
        least = 3 if tile else 11 if kind == 0x55 else 1
        long = len(body) > 2**24 and kind not in (1, 2, 0x7C)
        refuse(
            (file.number(4) != computed, f"CRC-32 does not match: {name}"),
            (kind < 0x80 and kind not in NAMES, f"unknown critical chunk: {name}"),
            (not tile and kind in seen, f"repeated: {name}"),
            (late or done == tiles, f"out of order: {name}"),
            (tile and (kind == 0x7C) != (done + 1 == tiles), f"last tile or not: {name}"),
            (alpha < (kind == 1) or (tile and alpha > (1 in seen)), f"ALPHA and kind: {name}"),
            (exact and kind == 0x55, f"FILTER in an exact picture: {name}"),
            (len(body) < least or long, f"length {len(body)} not allowed: {name}"),
        )
        if tile and (exact or flags > 127):
            row, column = divmod(done, -(-width // side))
            high, wide = min(side, height - row * side), min(side, width - column * side)
            check_exact(Bytes(body[2:]), exact, wide, high, name)
        if kind == 1:
            check_alpha(body, width, height)
        report.append(f"{name}: {len(body)} bytes" + f", symbols {body[1::-1].hex()}" * tile)
        seen.append(2 if tile else kind)
    refuse((seen.count(2) != tiles, f"{seen.count(2)} of {tiles} tiles"))


def check_exact(body: Bytes, exact: int, wide: int, high: int, name: str) -> None:
    """An exact tile, or the layer before another one, if it has any, is VP8L of its size."""
    layer = body.data if exact else body.take(body.varint(4))
    refuse((not exact and body.at == len(body.data), f"no payload after the layer: {name}"))
    start, sides = layer[:5] if exact else layer[2:7], (wide - 1) | (high - 1) << 14
    starts = [b"/" + (sides | 2**28 * hint).to_bytes(4, "little") for hint in (0, not exact)]
    refuse((layer and (start not in starts or max(high, wide) > 2**14), f"not VP8L: {name}"))


def check_alpha(body: bytes, width: int, height: int) -> None:
    """The plane inflates to the size of the picture and uses known filters."""
    if body[0] == 0 and len(body) == 2:
        return
    if body[0] == 2 and len(body) > 3 and width * height <= 2**24:
        return check_exact(Bytes(body[3:]), 1, width, height, "ALPHA")
    refuse((body[0] != 1, "alpha: unknown method"))
    inflate, size = zlib.decompressobj(), height * (width + 1)
    try:
        rows = inflate.decompress(body[1:], size + 1)
    except zlib.error as error:
        raise Refused(f"alpha: {error}") from error
    whole = len(rows) == size and inflate.eof and not inflate.unused_data
    refuse((not whole, "alpha: does not inflate to the size of the picture"))
    refuse((max(rows[:: width + 1]) > 3, "alpha: unknown filter"))


def main(paths: list[str]) -> int:
    status = 0
    for path in paths:
        report: list[str] = []
        try:
            with open(path, "rb") as stream:
                check_chunks(Bytes(stream.read()), report)
            print(f"{path}: ok", *report, sep="\n  ")
        except (Refused, OSError) as error:
            print(f"{path}: refused: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if len(sys.argv) > 1 else "usage: check_aec.py FILE...")
