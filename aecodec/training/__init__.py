"""Networks, data, training and export (needs the extra ``aecodec[train]``)."""
