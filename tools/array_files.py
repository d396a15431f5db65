"""What reading a .npy or .npz file may raise that a full disk, a bad sector or somebody's editor has changed."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

ARRAY_DAMAGE = (
    OSError,
    ValueError,
    LookupError,  # arrays, keys and places that are not there
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,  # numbers too large for what they count
    MemoryError,  # a header that claims more than there is
    SyntaxError,  # NumPy reads headers as Python literals
    tokenize.TokenError,  # and once more word by word, as Python 2 wrote them
    RuntimeError,  # a flag for encryption or for an unknown way of packing; nesting too deep
    zipfile.BadZipFile,
    zlib.error,
)
"""For ``except``: each of these means that the file is damaged or of another kind, and nothing about the program."""
