"""A picture to the bytes of an .aec file; the way back is in `aecodec.decoding`.

    pixels -> transform and prior (`aecodec.coder`) -> container
    pixels -> lossless tiles (`aecodec.exact`) -> container              of what repeats itself
    both, one over the other (`aecodec.layer`)                           of what does so in parts

Which it is depends on which takes the fewest bytes (`aecodec.choice`). A picture larger than
SINGLE_TILE_PIXELS is cut into tiles.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aecodec import alpha, choice, container, exact, layer, repeats, vp8l
from aecodec.coder import TransformCoder, Transformed, digest
from aecodec.container import AecFile, Colour, Header
from aecodec.decoding import decode_damaged, decode_file, model_of, pixel_decoder
from aecodec.distortion import decibels, hidden_by_alpha, samples_seen, squared_error
from aecodec.effort import DRAFT, Level
from aecodec.effort import level as effort_level
from aecodec.errors import AecError, FormatError, LimitError, SymbolError
from aecodec.filling import filled
from aecodec.layer import layers_of
from aecodec.model import open_model
from aecodec.paint import TILE, each, gathered, painted_rows, tile_workers
from aecodec.picture import Picture
from aecodec.tile import decode_tile
from aecodec.transforms import default_threads
from aecodec.watch import Report
from aecodec.weights import id_of
from aecodec.window import padded

__all__ = ["Encoder", "decode_damaged", "decode_file", "encode_picture"]

Float = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Blocks = npt.NDArray[np.bool_]

SINGLE_TILE_PIXELS = 3 * 2**20  # larger pictures are tiled
MOSTLY = 0.9  # share that repeats itself of a picture whose rest may be worth keeping exactly too
KEPT_PIXELS = 2**24  # latents of larger pictures are not kept between encodings


def encode_picture(
    picture: Picture,
    quality: float = 75.0,
    *,
    metadata: str = "all",
    threads: int = 0,
    verify: bool = False,
    effort: int | None = None,
    model: str = "",
    turns: bool = True,
    exactly: bool = True,
) -> bytes:
    """The bytes of an .aec file: `Encoder` for one quality, verified if asked for."""
    encoder = Encoder(
        picture, metadata=metadata, threads=threads, effort=effort, model=model, turns=turns,
        exactly=exactly, keep=verify,
    )  # fmt: skip
    data = encoder.encode(quality)
    if verify:
        encoder.verify(data)
    return data


class Encoder:
    """A picture that is coded at one quality or at several, as the search for a size needs.

    metadata: "all", "icc" or "none". threads: 0 takes the cores of the machine. effort: a level
    of `aecodec.effort`, None for the default. model: name or id, see `aecodec.weights`, "" for the
    default. turns: whether colours may be turned. exactly: whether the picture, or parts of it,
    may be kept exactly where that takes no more bytes. time_limit: seconds after which the search
    of one encoding ends with what it has, 0 for none. report: called with how far an encoding is,
    0 to 1, from any thread. keep: hold what another encoding and `decoded` can use, unless the
    picture is very large. Raises AecError for choices that are not there, LimitError, ModelError.

    The bytes do not depend on the number of threads, nor on anything but picture, settings,
    model and release on one kind of processor, unless a limit of time cuts in.
    """

    def __init__(
        self,
        picture: Picture,
        *,
        metadata: str = "all",
        threads: int = 0,
        effort: int | None = None,
        model: str = "",
        turns: bool = True,
        exactly: bool = True,
        time_limit: float = 0.0,
        report: Report | None = None,
        keep: bool = True,
    ) -> None:
        if metadata not in ("all", "icc", "none"):
            raise FormatError(f"metadata must be all, icc or none, not {metadata!r}")
        if not time_limit >= 0:  # also refuses NaN
            raise AecError(f"the time limit must be a number of seconds, not {time_limit:g}")
        self._picture, self._metadata = picture, _kept_metadata(picture, metadata)
        self._threads = threads or default_threads()
        self._level, self._time_limit, self._report = effort_level(effort), time_limit, report
        self._exactly, self._verifiable = exactly, keep
        self._model = open_model(id_of(model), self._threads)
        self._alpha = None if picture.alpha is None else alpha.pack_alpha(picture.alpha)
        self._header = _header(picture, self._model.weights.id)
        kept = keep and picture.width * picture.height <= KEPT_PIXELS
        self._coder = functools.partial(
            TransformCoder, self._model, threads=self._threads, keep=kept, digests=keep,
            turns=turns,
        )  # fmt: skip
        self._y_hat: Sequence[Float] = ()
        self._coded = b""  # the file encoded last
        self._digests: dict[bytes, Sequence[bytes]] = {}  # of each tile's y_hat, by the file's

    @property
    def slow(self) -> bool:
        """Whether a draft is worth it: see `encode`."""
        return self._level.number > DRAFT.number

    def encode(self, quality: float = 75.0, *, draft: bool = False) -> bytes:
        """The bytes of an .aec file; quality is 0 (small) to 100 (good), in hundredths.

        draft takes little effort, to see about what size and PSNR a quality gives. Raises
        FormatError for a quality out of range.
        """
        if not 0 <= quality <= 100:  # also refuses NaN
            raise FormatError(f"quality {quality:g} is not between 0 and 100")
        level = DRAFT if draft and self.slow else self._level
        header = replace(self._header, quality=round(quality * 100))
        if self._flat:
            return self._taken(self._exact_bytes)
        sizes = self._tried(header, level)
        if sizes and sizes.surely_exact:
            return self._taken(self._exact_bytes)
        ways = sizes.ways if sizes else (False,)
        coded = [
            self._transformed(header, level, layered, number, len(ways))
            for number, layered in enumerate(ways)
        ]
        data, found = min(coded, key=lambda way: len(way[0]))
        if self._exact_bytes and len(self._exact_bytes) <= len(data):
            return self._taken(self._exact_bytes)
        return self._taken(data, found)

    def _tried(self, header: Header, level: Level) -> choice.Sizes | None:
        """What each way would take, about; None of a picture that has but one."""
        if self._layer is None and self.exact is None:
            return None
        return self._trial.sizes(header.quality, level)

    @functools.cached_property
    def _flat(self) -> bool:
        """Whether the picture is one colour, which takes some bytes anyway, and may be kept."""
        pixels = self._picture.pixels
        if not np.array_equal(pixels[0, 0], pixels[-1, -1]) or self.exact is None:
            return False
        return bool((pixels == pixels[0, 0]).all())

    @functools.cached_property
    def _trial(self) -> choice.Trial:
        return choice.Trial(
            self._model, self._picture.pixels, self._shown, self._layer, self.exact is not None,
            self._threads,
        )  # fmt: skip

    def _transformed(
        self, header: Header, level: Level, layered: bool, number: int, ways: int
    ) -> tuple[bytes, Transformed]:
        """The file of the picture, or of what is under its layer, by transform and prior.

        number: of the way, among so many that are tried.
        """
        tell = self._report

        def report(share: float) -> None:
            assert tell is not None
            tell((number + share) / ways)

        coder = self._under if layered else self._plain
        found = coder.encode(header, level, self._time_limit / ways, report if tell else None)
        head, tiles, (icc, exif, xmp) = found.header, found.tiles, self._metadata
        if layered:
            head, pairs = replace(head, layered=True), zip(tiles, self._layers, strict=True)
            tiles = tuple(replace(tile, layer=over) for tile, over in pairs)
        file = AecFile(head, tiles, self._alpha, icc, exif, xmp, found.filter)
        return container.write(file), found

    def _taken(self, data: bytes, found: Transformed | None = None) -> bytes:
        """The file that was chosen; what `decoded` and `verify` need of it is kept."""
        self._coded, self._y_hat = data, found.y_hat if found else ()
        if self._verifiable:
            self._digests[digest(data)] = found.digests if found else ()
        return data

    @functools.cached_property
    def _shown(self) -> Pixels:
        """The pixels that the transform gets: with other ones where transparency hides them."""
        hidden = hidden_by_alpha(self._picture)
        return self._picture.pixels if hidden is None else filled(self._picture.pixels, hidden)

    @functools.cached_property
    def _plain(self) -> TransformCoder:
        return self._coder(self._shown)

    @functools.cached_property
    def _under(self) -> TransformCoder:
        assert self._layer is not None
        whole = (0, 0, self._header.width, self._header.height)
        return self._coder(filled(self._shown, repeats.enlarged(self._layer, whole)))

    @functools.cached_property
    def _layer(self) -> Blocks | None:
        """The blocks that may be kept exactly, if it is a part of them."""
        if not self._able:
            return None
        blocks = repeats.covered(self._picture.pixels)
        return None if blocks is None or blocks.all() else blocks

    @functools.cached_property
    def _layers(self) -> list[bytes]:
        """Those of all tiles."""
        blocks, header, pixels = self._layer, self._header, self._picture.pixels
        assert blocks is not None

        def pack(box: tuple[int, int, int, int]) -> bytes:
            left, top, right, bottom = box
            taken = repeats.enlarged(blocks, box)
            slowly = self._level.gradients
            return layer.pack(pixels[top:bottom, left:right], taken, slowly)

        workers = tile_workers(header, self._threads)
        return list(each(pack, header.boxes, header.tile_count > 1, workers))

    @property
    def _able(self) -> bool:
        """Whether samples may, and can, be kept."""
        width, height = next((box[2], box[3]) for box in self._header.boxes)
        return self._exactly and max(width, height) <= vp8l.MAX_SIDE and vp8l.available()

    @functools.cached_property
    def _exact_bytes(self) -> bytes:
        """Those of the file that keeps every sample, or none."""
        return b"" if self.exact is None else container.write(self.exact)

    @functools.cached_property
    def exact(self) -> AecFile | None:
        """The file that keeps every sample, if it promises to be small; equal at all qualities."""
        pixels = self._picture.pixels
        if not (self._able and repeats.promising(pixels)):
            return None
        if self._layer is not None and self._layer.mean() < MOSTLY:
            return None
        file = exact.file_of(self._header, pixels, self._threads, self._level.gradients)
        icc, exif, xmp = self._metadata
        return replace(file, alpha=self._alpha, icc=icc, exif=exif, xmp=xmp)

    def verify(self, data: bytes) -> float:
        """PSNR in dB of a file of this encoder, which was made with `keep`, as a decoder reads it.

        The decoded picture is compared a row of tiles at a time and never held as a whole.
        Raises AecError when it cannot be decoded, SymbolError when it is not what was coded:
        the latents that the pixels are made of, alpha, and metadata.
        """
        file, picture = container.read(data, container.MAX_SIDE**2), self._picture
        expected = self._digests.get(digest(data))
        if expected is None:
            raise SymbolError("verification failed: these are not the bytes that were coded")
        hidden = hidden_by_alpha(picture)
        squares = self._squares(file, expected, hidden)
        plane = None
        if file.alpha is not None:
            plane = alpha.unpack_alpha(file.alpha, picture.height, picture.width)
        if not np.array_equal(plane, picture.alpha):  # type: ignore[arg-type]
            raise SymbolError("verification failed: the alpha plane does not read back")
        if (file.icc, file.exif, file.xmp) != self._metadata:
            raise SymbolError("verification failed: the metadata does not read back")
        return decibels(squares, samples_seen(picture.pixels, hidden))

    def _squares(self, file: AecFile, expected: Sequence[bytes], hidden: Blocks | None) -> int:
        """Squared error of what is seen of a file's picture, whose latents have these digests."""
        pixels = self._picture.pixels
        if file.header.exact:
            return sum(
                squared_error(part, pixels[top:bottom, left:right])
                for (left, top, right, bottom), part in exact.parts(file, self._threads)
            )
        grey, model = file.header.colour is Colour.GREY, model_of(self._model, file)

        def latents(index: int) -> Float:
            box, tile = boxes[index], file.tiles[index]
            assert tile is not None  # container.read refuses files that lack one
            size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
            y_hat = decode_tile(model, tile, size, file.header.quality, grey)
            if digest(y_hat) != expected[index]:
                raise SymbolError("verification failed: a tile does not decode to what was coded")
            return y_hat

        boxes, squares, top = list(file.header.boxes), 0, 0
        layers = layers_of(file)
        for part in painted_rows(model, file.header, latents, self._threads, layers):
            rows = slice(top, top + len(part))
            squares += squared_error(part, pixels[rows], hidden if hidden is None else hidden[rows])
            top += len(part)
        return squares

    def decoded(self) -> Picture:
        """What a decoder makes of the file encoded last; its symbols are not decoded again."""
        file = container.read(self._coded, container.MAX_SIDE**2)
        if self._y_hat:
            model = model_of(self._model, file)
            y_hat, layers = self._y_hat.__getitem__, layers_of(file)
            rows = painted_rows(model, file.header, y_hat, self._threads, layers)
            pixels = gathered(file.header, rows)
        else:  # not kept
            pixels = pixel_decoder(file, self._threads)(None)
        return Picture(pixels, self._picture.alpha)


def _kept_metadata(picture: Picture, metadata: str) -> tuple[bytes | None, ...]:
    """(ICC profile, EXIF, XMP), those that "all", "icc" or "none" keeps."""
    icc = picture.icc if metadata != "none" else None
    exif, xmp = (picture.exif, picture.xmp) if metadata == "all" else (None, None)
    return icc, exif, xmp


def _header(picture: Picture, model_id: bytes) -> Header:
    """The head of the file of a picture, at quality 0. Raises LimitError."""
    height, width = picture.pixels.shape[:2]
    if max(height, width) > container.MAX_SIDE:
        raise LimitError(f"{width}x{height}: sides must be 1 to {container.MAX_SIDE} pixels")
    colour = Colour.GREY if picture.pixels.ndim == 2 else Colour.RGB
    tile = TILE if width * height > SINGLE_TILE_PIXELS else 0
    return Header(model_id, colour, picture.alpha is not None, width, height, 0, tile)
