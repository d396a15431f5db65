"""The HTML around the data: parts put together, escaped, and locked by a policy that only the page's own parts pass.

The policy names the one style and the two scripts by their hashes, lets pictures come from ``data:`` addresses and
nothing from anywhere else, and makes the browser refuse any script that would turn a string into markup (Trusted
Types). Data are JSON in script elements that no browser runs; with ``<``, ``>`` and ``&`` and everything beyond ASCII
spelt out in them, no text can end its element.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

_SPELT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def json_text(data: Any) -> str:
    """Data as JSON in ASCII that may stand inside an HTML script element.

    Raises:
        ValueError: a number in it is not finite; JSON has no way to write it.
    """
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: _SPELT[found[0]], text)


def data_block(name: str, text: str) -> str:
    """A script element that is data: JSON, or base64 of deflated JSON."""
    return f'<script type="application/json" id="{html.escape(name)}">{text}</script>\n'


def deflated(data: Any) -> str:
    """Data as base64 of a zlib stream of their JSON: pages of documents repeat from part to part."""
    return base64.b64encode(zlib.compress(json_text(data).encode("ascii"), 9)).decode("ascii")


def frame(title: str, subtitle: str, version: str, index: Iterable[str]) -> tuple[str, str]:
    """The page before and after the blocks that its script reads later.

    Args:
        title: of the page; escaped here, as is the subtitle.
        subtitle: one line below it.
        version: of Flawscope.
        index: blocks that the script reads at once.
    """
    template = _text("page.html")
    style, early, script = _text("page.css"), _text("early.js"), _script()
    parts = {
        "policy": policy(style, [early, script]),
        "title": html.escape(title),
        "subtitle": html.escape(subtitle),
        "version": html.escape(version),
        "style": style,
        "early": early,
        "script": script,
        "index": "".join(index),
    }
    before, after = template.split("{{store}}")
    return _filled(before, parts), _filled(after, parts)


def policy(style: str, scripts: Iterable[str]) -> str:
    """The Content-Security-Policy of a page with one inline style and these inline scripts."""
    allowed = " ".join(_hash(script) for script in scripts)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            f"style-src {_hash(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """Each placeholder replaced once: what a part holds is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _script() -> str:
    """The scripts in the order of their names, in one scope of their own."""
    found = sorted((each for each in files(__package__).joinpath("scripts").iterdir()), key=lambda each: each.name)
    body = "\n".join(each.read_text(encoding="utf-8") for each in found if each.name.endswith(".js"))
    return f'(() => {{\n"use strict";\n{body}}})();\n'


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
