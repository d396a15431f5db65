"""Keep every version of each product's control plan; none is ever changed or removed.

    plans/<product>/0001.yaml   the file as it was written, comments and all
                    0001.json   who set it, when, why, and its hash; a version exists once this is there

The newest version holds. Going back writes the older text as a new version, so history only grows.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...agent.errors import ConfigError, ProductError, StorageError
from ...agent.home import storage_errors, write_json_atomically
from .reading import parse_plan, product_plan
from .schema import ProductPlan

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class PlanVersion:
    """One entry of the history.

    Attributes:
        version: counted from 1.
        created: UTC, ISO 8601.
        author: who set it.
        note: why.
        sha256: of the text.
    """

    version: int
    created: str
    author: str
    note: str
    sha256: str


class PlanStore:
    """The plans of a home.

    Args:
        folder: with one folder per product.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def history(self, product: str) -> list[PlanVersion]:
        """All versions, oldest first; empty when nothing was planned.

        Raises:
            ConfigError: the name cannot be a product's.
            ProductError: an entry is damaged.
        """
        found = []
        for path in sorted(self._of(product).glob("[0-9]*.json")):
            try:
                found.append(PlanVersion(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                raise ProductError(f"the history of the control plan is damaged ({path}).") from error
        return found

    def text(self, product: str, version: int | None = None) -> str:
        """A version as it was written.

        Args:
            product: its name.
            version: None for the newest.

        Raises:
            ProductError: there is none, or its file is not what was set.
        """
        entry = self._entry(product, version)
        path = self._of(product) / f"{entry.version:04d}.yaml"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ProductError(f"version {entry.version} of the control plan is missing ({path}).") from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ProductError(
                f"version {entry.version} of the control plan of {product} was changed on disk.",
                hint=f"Go back: flawscope products plan rollback {product} VERSION",
            )
        return data.decode("utf-8")

    def plan(self, product: str) -> tuple[ProductPlan, PlanVersion] | None:
        """The plan that holds, and its entry; None when nothing was planned.

        Raises:
            ProductError: it is damaged.
        """
        if not (_NAME.fullmatch(product) and (self.folder / product).is_dir()):
            return None
        history = self.history(product)
        if not history:
            return None
        text = self.text(product, history[-1].version)
        return product_plan(parse_plan(text), product), history[-1]

    def set(
        self, product: str, text: str, *, author: str, note: str = "", name: str = "the control plan"
    ) -> PlanVersion:
        """Check a plan and make it the newest version; the same text as the newest changes nothing.

        Raises:
            ConfigError: the text is no plan of that product.
            StorageError: the disk refuses, or another process sets a plan at the same time.
        """
        folder, data = self._of(product), text.encode("utf-8")
        product_plan(parse_plan(text, name), product, name)
        digest, history = hashlib.sha256(data).hexdigest(), self.history(product)
        if history and history[-1].sha256 == digest:
            return history[-1]
        created = datetime.now(UTC).isoformat(timespec="seconds")
        entry = PlanVersion(history[-1].version + 1 if history else 1, created, author, note, digest)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{entry.version:04d}.yaml"
            path.write_bytes(data)  # one that was left without its entry is nobody's
        where = folder / f"{entry.version:04d}.json"
        if where.exists():
            raise StorageError(f"somebody else set version {entry.version} at the same time.", hint="Try again.")
        write_json_atomically(where, asdict(entry))
        return entry

    def roll_back(self, product: str, version: int, *, author: str) -> PlanVersion:
        """Make an older version hold again, as a new one.

        Raises:
            ProductError: there is no such version.
        """
        text = self.text(product, version)
        return self.set(product, text, author=author, note=f"back to version {version}")

    def _entry(self, product: str, version: int | None) -> PlanVersion:
        history = self.history(product)
        if not history:
            raise ProductError(
                f"{product} has no control plan.", hint=f"Set one: flawscope products plan set {product} FILE"
            )
        for entry in history:
            if version in (None, entry.version) and (version is not None or entry is history[-1]):
                return entry
        raise ProductError(f"{product} has no version {version} of its control plan; they are 1 to {len(history)}.")

    def _of(self, product: str) -> Path:
        if not _NAME.fullmatch(product):
            raise ConfigError(f"{product!r} cannot name a product.", hint="Use letters, digits, '_', '-' and '.'.")
        return self.folder / product
