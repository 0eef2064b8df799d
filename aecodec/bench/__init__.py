"""Rate-distortion benchmark: aecodec beside the codecs a user would otherwise pick.

    pictures -> codecs -> real files -> decoded back -> metrics -> records.jsonl
             -> summary (means, BD-rate) -> summary.md, plots, report.html

The command is ``aecodec bench``; ``python -m aecodec.bench`` is the same. Needs the extra
``aecodec[bench]``; a codec or metric whose package is missing is named and left out.
"""
