"""The file of guard G5: what latent reasoning did to good parts, measured with one checkpoint and one search."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import ConfigError, WeightsError
from ...home import write_json_atomically
from .settings import LatentSettings, NormalImages

NORMALS_FILE = "normals.json"
FORMAT: Literal["flawscope-latent-normals"] = "flawscope-latent-normals"
VERSION: Literal[1] = 1
MAX_BYTES = 1_000_000
AGAIN = "Measure it: flawscope bench ablation --arms A8 --goods 20 --out DIR writes DIR/normals.json."


class _File(BaseModel):
    """What stands in the file.

    Attributes:
        model: name of the checkpoint, for people.
        weights: what tells it and its settings from others (`loading.weights_identity`).
        latent: settings of the search.
        questions: about good parts.
        base_alarms: how many were called defective without the search.
        latent_alarms: how many with it.
        cut: searches that ended for want of time or memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["flawscope-latent-normals"] = FORMAT
    version: Literal[1] = VERSION
    model: str
    weights: Annotated[str, Field(min_length=1)]
    latent: dict[str, Any]
    questions: Annotated[int, Field(ge=1)]
    base_alarms: Annotated[int, Field(ge=0)]
    latent_alarms: Annotated[int, Field(ge=0)]
    cut: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if max(self.base_alarms, self.latent_alarms) > self.questions:
            raise ValueError("there are more alarms than questions")
        if self.cut > self.questions:
            raise ValueError("there are more searches than questions")
        return self


def save_normals(path: Path, measured: NormalImages, *, model: str, weights: str, settings: LatentSettings) -> None:
    """Write what was measured.

    Args:
        path: of the file.
        measured: questions about good parts, and how many were called defective; also where too many searches were
            cut off, which whoever reads it is told.
        model: name of the checkpoint.
        weights: what tells it from others; a measurement that says nothing of that could be used with any.
        settings: of the search.

    Raises:
        StorageError: the disk refuses.
    """
    told = _File(
        model=model,
        weights=weights,
        latent=_plain(settings),
        questions=measured.count,
        base_alarms=measured.base_alarms,
        latent_alarms=measured.latent_alarms,
        cut=measured.cut,
    )
    write_json_atomically(path, told.model_dump(mode="json"))


def load_normals(path: Path, *, weights: str, settings: LatentSettings) -> NormalImages:
    """Read what was measured, if it was measured with this checkpoint and this search.

    Args:
        path: of the file.
        weights: of the checkpoint in use.
        settings: of the search in use.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
        ConfigError: it was measured with other weights, with a search that was set otherwise, or with too many
            searches that were cut off.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path} is too large for a measurement of latent reasoning.", hint=AGAIN)
        found = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise WeightsError(f"latent_normals {path} cannot be read: {error.strerror or error}.", hint=AGAIN) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise WeightsError(f"latent_normals {path} is damaged: {where}: {first['msg']}.", hint=AGAIN) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON
        raise WeightsError(f"latent_normals {path} is no measurement of latent reasoning.", hint=AGAIN) from error
    if found.weights != weights:
        raise ConfigError(
            f"latent_normals {path} was measured with other weights ({found.model}), or other settings of the model.",
            hint=AGAIN,
        )
    search, used = found.latent, _plain(settings)
    if search != used:
        other = [name for name in sorted({**search, **used}) if search.get(name) != used.get(name)]
        raise ConfigError(f"latent_normals {path} was measured with another search ({', '.join(other)}).", hint=AGAIN)
    measured = NormalImages(found.questions, found.base_alarms, found.latent_alarms, found.cut)
    if not measured.measured:
        raise ConfigError(
            f"latent_normals {path} measured little: {found.cut} of {found.questions} searches were cut off.",
            hint=f"A search has {settings.wall_s:g} s and {settings.memory_bytes / 2**20:.0f} MiB, in inspections too:"
            " measure it on a faster machine (another --out), or leave latent off.",
        )
    return measured


def _plain(settings: LatentSettings) -> dict[str, Any]:
    """As JSON has it: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain
