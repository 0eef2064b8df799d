"""Everything that aecodec refuses, as one tree.

    AecError (ValueError)
    ├── FormatError          not an .aec file, cut short, or against the rules of the format
    │   └── ChecksumError    the bytes of a chunk or of the head were changed after writing
    ├── UnsupportedError     a valid file that asks for something this release does not know
    ├── LimitError           larger than the format or the caller allows
    ├── ModelError           the weights that a file needs are missing or damaged
    ├── SymbolError          the decoder went out of step with the encoder
    ├── PictureError         a picture that cannot be read, written or handled
    └── FileError            the operating system cannot read or write a file

Catch `AecError` to catch all of them. Every message is one line, fit to be shown as it is.
"""

from __future__ import annotations


class AecError(ValueError):
    """Root of the tree; the message is always a single line."""

    def __init__(self, message: str) -> None:
        # File names and messages of other libraries may hold line breaks.
        super().__init__(" ".join(message.split()))


class FormatError(AecError):
    """The bytes are not an .aec file, are cut short, or break a rule of docs/format.md."""


class ChecksumError(FormatError):
    """A CRC-32 does not match: the file was damaged after it was written."""


class UnsupportedError(AecError):
    """The file needs a newer release: unknown format version, picture kind or critical chunk."""


class LimitError(AecError):
    """A size is above a limit of the format or above the limit that the caller set."""


class ModelError(AecError):
    """The model (weights and tables) that a file needs cannot be found, or is damaged."""


class SymbolError(AecError):
    """The decoded symbols do not match the checksum in the file: decoder out of step."""


class PictureError(AecError):
    """A picture that Pillow cannot read or write, or of a kind that is not handled."""


class FileError(AecError):
    """A file that the operating system cannot read or write."""
