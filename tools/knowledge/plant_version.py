"""The record of one version of a plant's page, and what of such a file can be believed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Action = Literal["add", "edit", "import", "draft", "accept", "reject", "feedback", "remove", "rollback"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Version:
    """One version of a page.

    Attributes:
        doc_id: the page.
        number: 1 for the first.
        action: what made it; ``remove`` leaves no page.
        author: who did it.
        time: UTC, ISO 8601.
        page_sha256: of the file; empty after ``remove``.
        picture_sha256: of the file; empty without a picture.
        picture_hash: difference hash of the picture, 16 hex digits; empty without one.
        previous_sha256: of the record before, empty for the first: a record cannot be changed unnoticed.
    """

    doc_id: str
    number: int
    action: Action
    author: str
    time: str
    page_sha256: str
    picture_sha256: str
    picture_hash: str
    previous_sha256: str


def version_from(text: str) -> Version:
    """The version that a record's text describes.

    Raises:
        ValueError: it describes none: other fields, values of another kind, or hashes that are none.
    """
    record: Any = json.loads(text)
    if not isinstance(record, dict) or set(record) != {field.name for field in fields(Version)}:
        raise ValueError("other fields")
    version = Version(**record)
    if type(version.number) is not int or any(
        not isinstance(value, str) for name, value in record.items() if name != "number"
    ):
        raise ValueError("values of another kind")
    if version.action not in get_args(Action):
        raise ValueError("an action that is none")
    hashes = (version.page_sha256, version.picture_sha256, version.previous_sha256)
    if any(value and not _SHA256.fullmatch(value) for value in hashes):
        raise ValueError("a sha256 that is none")
    if bool(version.picture_sha256) != bool(_HASH.fullmatch(version.picture_hash)):
        raise ValueError("a picture without its hash, or a hash without its picture")
    return version
