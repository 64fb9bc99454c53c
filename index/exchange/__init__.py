"""Vectors from and to the files of other systems.

`files` tells the format by the suffix; `bigann`, `npz`, `anserini` and `parquet` each read or write one.
"""
