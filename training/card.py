"""The model card: what weights were trained on, how, how well they do, and whether they may be passed on."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..agent.home import write_json_atomically, write_text_atomically
from ..benchmarks.datasets import ProductData

LICENCE_FILES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENCE.txt", "license.txt", "LICENSE.md")
NOT_STATED = "not stated"
PACKAGES = ("flawscope", "torch", "numpy", "pillow", "scipy", "onnxruntime", "safetensors")


def licence_of(product: Path) -> str:
    """What a product's folder, or the one above it, says: the first line of a licence file; or ``not stated``."""
    for folder in (product, product.parent):
        for name in LICENCE_FILES:
            path = folder / name
            if path.is_file():
                lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
                return next((line for line in lines if line), NOT_STATED)[:200]
    return NOT_STATED


def describe_product(product: ProductData, licence: str) -> dict[str, Any]:
    """A product's entry: counts, licence as given, and one hash over the names and contents of its pictures."""
    digest = hashlib.sha256()
    paths = [*product.references, *(test.path for test in product.tests)]
    paths += [mask for test in product.tests for mask in test.mask_paths]
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return {
        "name": product.name,
        "licence": licence,
        "good_references": len(product.references),
        "test_good": int((~product.labels).sum()),
        "test_defective": int(product.labels.sum()),
        "with_masks": product.has_masks,
        "files_sha256": digest.hexdigest(),
    }


def describe_data(
    trained_on: Sequence[tuple[ProductData, str]], held_out: Sequence[tuple[ProductData, str]]
) -> dict[str, list[dict[str, Any]]]:
    """The card's data: an entry for each product that was learnt from, and for each that decided when to stop."""
    return {
        "trained_on": [describe_product(product, licence) for product, licence in trained_on],
        "held_out": [describe_product(product, licence) for product, licence in held_out],
    }


def fingerprint_of(*identity: Any) -> str:
    """Hash of what makes a run that run (data, configuration, backbone); a checkpoint of another is refused."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def environment() -> dict[str, Any]:
    """Versions of what decides the numbers, and the commit of a checkout; None where it is not one."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """``card.json`` and ``card.md``, each replaced atomically.

    Raises:
        StorageError: the disk refuses.
    """
    write_json_atomically(folder / "card.json", dict(card))
    write_text_atomically(folder / "card.md", render_card(card))


def render_card(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    trained, held_out = card["data"]["trained_on"], card["data"]["held_out"]
    caution = "The score of held-out products chose the epoch, so it is an optimistic estimate for them."
    lines = [
        f"# {card['model']}",
        "",
        f"Backbone {card['backbone']['name']} (frozen, sha256 {card['backbone']['sha256'][:12]}…), seed {card['seed']},"
        f" weights sha256 {card['weights_sha256'][:12]}….",
        "",
        "## Data",
        "",
        "| product | used for | licence as given | good | test good / defective | masks | files |",
        "|---|---|---|---|---|---|---|",
        *(_row(entry, "training") for entry in trained),
        *(_row(entry, "early stopping") for entry in held_out),
        "",
        _passing_on(trained),
        "",
        "## Result",
        "",
        *(f"- {name}: {_number(value)}" for name, value in card["metrics"].items()),
        "",
        *([caution, ""] if held_out else []),
        "## Configuration",
        "",
        *(f"- {name}: {value}" for name, value in card["config"].items()),
        "",
        "## Made with",
        "",
        f"Python {card['environment']['python']} on {card['environment']['machine']}, commit"
        f" {card['environment']['commit'] or 'unknown'};"
        f" {', '.join(f'{n} {v}' for n, v in card['environment']['packages'].items() if v)}.",
        "",
    ]
    return "\n".join(lines)


def _passing_on(trained: Sequence[Mapping[str, Any]]) -> str:
    unknown = sorted({entry["name"] for entry in trained if entry["licence"] == NOT_STATED})
    if unknown:
        return f"The licence of {', '.join(unknown)} is not stated: do not pass these weights on before it is known."
    return "Pass these weights on only as far as every licence above allows."


def _row(entry: Mapping[str, Any], use: str) -> str:
    return (
        f"| {entry['name']} | {use} | {entry['licence']} | {entry['good_references']} |"
        f" {entry['test_good']} / {entry['test_defective']} | {'yes' if entry['with_masks'] else 'no'} |"
        f" {entry['files_sha256'][:12]}… |"
    )


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "none" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # an installed package may lie inside somebody else's checkout
        return None
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None
