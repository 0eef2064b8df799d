"""`python -m aecodec` is the command `aecodec`."""

from __future__ import annotations

from aecodec.cli import main

if __name__ == "__main__":
    main()
