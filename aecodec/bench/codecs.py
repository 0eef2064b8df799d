"""The codecs of the benchmark behind one small interface: RGB picture <-> bytes of a file.

Every setting that decides a file is fixed here, so a rate measured on one machine is the rate
measured on another with the same library versions:

- AVIF files depend on the number of encoder threads (row threading changes decisions), so rate
  runs use one thread; timing runs pass the number they state.
- AVIF is present twice, as Pillow writes it by default and tuned for PSNR, so that no comparison
  in PSNR rests on another codec aiming at another metric.
- JPEG 2000 uses its colour transform (mct=1); without it colour costs far too much.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, features

from aecodec.effort import DEFAULT
from aecodec.weights import DEFAULT as DEFAULT_MODEL
from aecodec.weights import id_of

SLOW_EFFORT = 8  # the search for those who compress once and send often; only run when named

Encoder = Callable[[Image.Image, float, int], bytes]
Decoder = Callable[[Path, int], Image.Image]


@dataclass(frozen=True)
class Codec:
    """One codec at one configuration; quality is the only thing that varies."""

    name: str
    label: str
    suffix: str
    settings: str
    """The configuration in words, as printed in reports."""
    qualities: tuple[float, ...]
    """Default sweep, from about 24 to 44 dB on photographs."""
    encode: Encoder
    """(RGB picture, quality, threads) -> bytes of a whole file; threads is a request."""
    decode: Decoder
    """(file, threads) -> RGB picture."""
    version: Callable[[], str]
    """Version of the library that makes the bytes; records of another version are not reused."""
    learned: bool = False
    browser_mime: str | None = None
    """Media type if every current browser shows such a file, so reports can embed it as it is."""
    integer_quality: bool = True


def _pillow_encoder(image_format: str, **fixed: Any) -> Encoder:
    def encode(image: Image.Image, quality: float, threads: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, image_format, quality=round(quality), **fixed)
        return buffer.getvalue()

    return encode


def _pillow_decode(path: Path, threads: int) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _pillow_version(feature: str, library: str) -> Callable[[], str]:
    return lambda: f"{library} {features.version(feature)}"


def jpeg2000_target_db(quality: float) -> float:
    """PSNR in dB that OpenJPEG is asked for at a quality of the common 0..100 scale."""
    return 20.0 + 0.25 * quality


def _jpeg2000_encode(image: Image.Image, quality: float, threads: int) -> bytes:
    buffer = io.BytesIO()
    layers = [jpeg2000_target_db(quality)]
    image.save(
        buffer, "JPEG2000", irreversible=True, quality_mode="dB", quality_layers=layers, mct=1
    )
    return buffer.getvalue()


def _avif_encoder(speed: int, **advanced: str) -> Encoder:
    def encode(image: Image.Image, quality: float, threads: int) -> bytes:
        buffer = io.BytesIO()
        image.save(
            buffer,
            "AVIF",
            quality=round(quality),
            subsampling="4:4:4",
            speed=speed,
            max_threads=threads,
            advanced=advanced or None,
        )
        return buffer.getvalue()

    return encode


def _avif_version() -> str:
    avif: Any = importlib.import_module("PIL._avif")
    encoders = [part for part in avif.codec_versions().split(", ") if "[enc]" in part]
    return f"libavif {avif.libavif_version}, {' '.join(encoders).replace(' [enc]:', ' ')}"


def _heif() -> Any:
    """The HEIC plugin with its opener registered; raises ImportError when it is missing."""
    heif = importlib.import_module("pillow_heif")
    heif.register_heif_opener()
    return heif


def _heic_encode(image: Image.Image, quality: float, threads: int) -> bytes:
    _heif()
    return _pillow_encoder("HEIF", chroma=444)(image, quality, threads)


def _heic_decode(path: Path, threads: int) -> Image.Image:
    _heif().options.DECODE_THREADS = threads
    return _pillow_decode(path, threads)


def _heic_version() -> str:
    info = _heif().libheif_info()
    return f"libheif {info['libheif']}, {info['HEIF'].replace(' HEVC encoder', '')}"


def _jxl_encode(image: Image.Image, quality: float, threads: int) -> bytes:
    importlib.import_module("pillow_jxl")
    return _pillow_encoder("JXL", effort=7, num_threads=threads)(image, quality, threads)


def _jxl_decode(path: Path, threads: int) -> Image.Image:
    importlib.import_module("pillow_jxl")
    return _pillow_decode(path, threads)


def _jxl_version() -> str:
    return f"pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}"


def _aecodec() -> Any:
    """The package itself, loaded when first used: opening a model takes memory and time."""
    return importlib.import_module("aecodec")


def _aec_encoder(effort: int, model: str) -> Encoder:
    options = {"effort": effort, "model": model}

    def encode(image: Image.Image, quality: float, threads: int) -> bytes:
        return bytes(_aecodec().encode(image, quality=quality, threads=threads, **options))

    return encode


def _aec_decode(path: Path, threads: int) -> Image.Image:
    image: Image.Image = _aecodec().decode(path.read_bytes(), threads=threads)
    return image.convert("RGB")


def _aec_version(model: str) -> str:
    """Package version and model id, so that new weights are never mixed with old records."""
    return f"aecodec {_aecodec().__version__}, model {id_of(model)}"


def _aec(
    name: str, label: str, settings: str, *, model: str = DEFAULT_MODEL, effort: int = DEFAULT
) -> Codec:
    """One configuration of our own: the slow ones with fewer points."""
    fast = effort == DEFAULT
    return Codec(
        name=name,
        label=label,
        suffix=".aec",
        settings=settings,
        qualities=tuple(range(0, 101, 10 if fast else 20)),
        encode=_aec_encoder(effort, model),
        decode=_aec_decode,
        version=lambda: _aec_version(model) + ("" if fast else f", effort {effort}"),
        learned=True,
        integer_quality=False,
    )


REGISTRY: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        _aec("aec", "aecodec", "one weights file for every quality"),
        _aec(
            "aec-slow",
            f"aecodec, effort {SLOW_EFFORT}",
            "the same with a gradient search by the encoder, some 20 s for 0.4 megapixels",
            effort=SLOW_EFFORT,
        ),
        _aec(
            "aec-small",
            "aecodec, small model",
            "the model for smaller files that take three times as long to decode",
            model="small",
        ),
        _aec(
            "aec-small-slow",
            f"aecodec, small model, effort {SLOW_EFFORT}",
            "that model with the gradient search",
            model="small",
            effort=SLOW_EFFORT,
        ),
        Codec(
            name="jpeg",
            label="JPEG",
            suffix=".jpg",
            settings="4:2:0, optimize",
            qualities=(5, 10, 15, 20, 30, 40, 50, 65, 75, 85, 92, 96),
            encode=_pillow_encoder("JPEG", optimize=True, subsampling="4:2:0"),
            decode=_pillow_decode,
            version=_pillow_version("libjpeg_turbo", "libjpeg-turbo"),
            browser_mime="image/jpeg",
        ),
        Codec(
            name="jpeg2000",
            label="JPEG 2000",
            suffix=".jp2",
            settings="irreversible, mct=1, PSNR target 20 dB + quality / 4",
            qualities=(16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96),
            encode=_jpeg2000_encode,
            decode=_pillow_decode,
            version=_pillow_version("jpg_2000", "OpenJPEG"),
            integer_quality=False,
        ),
        Codec(
            name="webp",
            label="WebP",
            suffix=".webp",
            settings="method 6",
            qualities=(0, 5, 15, 30, 45, 60, 75, 82, 88, 93, 97),
            encode=_pillow_encoder("WEBP", method=6),
            decode=_pillow_decode,
            version=_pillow_version("webp", "libwebp"),
            browser_mime="image/webp",
        ),
        Codec(
            name="avif",
            label="AVIF",
            suffix=".avif",
            settings="4:4:4, speed 6, Pillow's default tuning",
            qualities=(5, 12, 20, 30, 40, 50, 60, 70, 80, 88, 93),
            encode=_avif_encoder(6),
            decode=_pillow_decode,
            version=_avif_version,
            browser_mime="image/avif",
        ),
        Codec(
            name="avif-psnr",
            label="AVIF tuned for PSNR",
            suffix=".avif",
            settings="4:4:4, speed 4, tune=psnr",
            qualities=(5, 12, 20, 30, 40, 50, 60, 70, 80, 88),
            encode=_avif_encoder(4, tune="psnr"),
            decode=_pillow_decode,
            version=_avif_version,
            browser_mime="image/avif",
        ),
        Codec(
            name="heic",
            label="HEIC",
            suffix=".heic",
            settings="x265, 4:4:4",
            qualities=(5, 12, 20, 28, 36, 44, 52, 60, 68, 74),
            encode=_heic_encode,
            decode=_heic_decode,
            version=_heic_version,
        ),
        Codec(
            name="jxl",
            label="JPEG XL",
            suffix=".jxl",
            settings="effort 7",
            qualities=(5, 12, 20, 30, 45, 60, 70, 80, 87, 92, 95),
            encode=_jxl_encode,
            decode=_jxl_decode,
            version=_jxl_version,
        ),
    )
}

GROUPS = {"avif": ("avif", "avif-psnr")}
"""Names of the command line that stand for more than one configuration."""


def expand(names: Iterable[str]) -> list[str]:
    """Names as given on the command line -> registry names, each once, in the order given.

    >>> expand(["avif", "jpeg", "avif-psnr"])
    ['avif', 'avif-psnr', 'jpeg']
    """
    expanded = [each for name in names for each in GROUPS.get(name, (name,))]
    unknown = [name for name in expanded if name not in REGISTRY]
    if unknown:
        raise ValueError(f"unknown codec {unknown[0]!r}; known: {', '.join(REGISTRY)}")
    return list(dict.fromkeys(expanded))


def probe_picture(side: int = 64) -> Image.Image:
    """A small colour ramp for asking a codec whether it works at all."""
    ramp = Image.linear_gradient("L").resize((side, side))
    return Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_90), ramp))


@functools.cache
def probe(name: str) -> tuple[str, str]:
    """(version, "") if the codec can write a file here, else ("", reason it cannot)."""
    codec = REGISTRY[name]
    try:
        if not codec.encode(probe_picture(), codec.qualities[0], 1):
            return "", "wrote an empty file"
        return codec.version(), ""
    # A plugin may fail to import, to load its shared library or to encode: all mean "skip it".
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
