"""Prompts and sentences as versioned files.

A file is Markdown: front-matter with ``version``, then sections ``## name`` whose body is a template with
``{variables}``. A variable that is not given is an error, and so is one that the template does not use, so that a
template and its caller cannot drift apart.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..agent.errors import ConfigError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PromptFile:
    """A parsed prompt file.

    Attributes:
        name: the file's stem.
        version: from the front-matter.
        sha256: of the whole file, recorded in reports.
        sections: section name -> template.
    """

    name: str
    version: str
    sha256: str
    sections: dict[str, str]


@cache
def load_prompts(name: str) -> PromptFile:
    """Parse ``prompts/<name>.md``.

    Raises:
        ConfigError: there is no such file, or it has no version or no sections.
    """
    path = FOLDER / f"{name}.md"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.md")))
        raise ConfigError(f"no prompt file {name!r}.", hint=f"Known: {known}.")
    text = path.read_text(encoding="utf-8")
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    version = next((line.partition(":")[2].strip() for line in head.splitlines() if line.startswith("version:")), "")
    sections = {}
    for part in ("\n" + body).split("\n## ")[1:]:
        title, _, template = part.partition("\n")
        sections[title.strip()] = " ".join(template.split())
    if not version or not sections:
        raise ConfigError(f"prompt file {path.name} has no version or no sections.")
    return PromptFile(name, version, hashlib.sha256(text.encode()).hexdigest(), sections)


def render(name: str, section: str, /, **variables: object) -> str:
    """Fill one template.

    Raises:
        ConfigError: the section is unknown, or the variables are not exactly those of the template.
    """
    file = load_prompts(name)
    try:
        template = file.sections[section]
    except KeyError:
        raise ConfigError(f"prompt file {name} has no section {section!r}.") from None
    wanted = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    if wanted != set(variables):
        raise ConfigError(f"prompt {name}/{section} takes {sorted(wanted)}, given {sorted(variables)}.")
    return template.format(**variables)
