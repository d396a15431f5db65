"""What the command line does with an Inspector: several pictures in order, files beside them, conversations."""

from __future__ import annotations

import os
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifacts import ArtifactStore
from .errors import ConfigError, InputError, StorageError
from .home import alone, is_file_or_was, lock_beside, storage_errors, write_atomically, write_text_atomically
from .inspector import InspectionDeps, Inspector, Progress
from .reasoner.evidence import words
from .schemas import InspectionReport
from .settings import LoadedSettings

if TYPE_CHECKING:
    from .conversation import Conversation
    from .vision_language import OnText

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)


def expand_pictures(paths: Sequence[Path], *, except_in: Path | None = None) -> list[Path]:
    """Folders become the pictures in them, sorted, subfolders included; files stay as given, links to nothing too.

    Args:
        paths: files and folders; hidden files in folders are left out.
        except_in: a folder that is left out too, since it takes the overlays of an earlier run.

    Raises:
        InputError: a folder holds no picture, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        try:
            is_folder = path.is_dir()
        except OSError:  # such as a name too long: a picture that cannot be read, which its own record says
            is_folder = False
        if not is_folder:
            found.append(path)
            continue
        try:
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and is_file_or_was(p))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the path.") from error
        inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if except_in is not None and path.resolve() != except_in.resolve():
            own = except_in.resolve()
            inside = [p for p in inside if not Path(os.path.realpath(p)).is_relative_to(own)]  # also of a circle
        if not inside:
            raise InputError(f"the folder {path} holds no pictures.", hint="Name a picture or another folder.")
        found += inside
    return found


def inspect_all(
    loaded: LoadedSettings,
    images: Sequence[Path],
    product: str | None,
    references: Sequence[Path],
    out: Path | None,
    progress: Progress | None,
    on_step: Callable[[str], None],
    instruction: str = "",
    on_text: OnText | None = None,
) -> Iterator[InspectionReport]:
    """Inspect pictures in the order given; each report is yielded (and its files written) before the next begins.

    What would fail for every picture alike (product, references, weights, knowledge base) fails before the first.

    Args:
        loaded: settings.
        images: pictures.
        product: an enrolled product.
        references: good pictures instead of a product.
        out: folder for the files of each picture; None writes nothing.
        progress: told about building and fitting.
        on_step: told each step's name as it ends.
        instruction: what is asked.
        on_text: sees a model's answers grow, piece by piece.

    Raises:
        FlawscopeError: nothing can be inspected, or the files of a picture cannot be written.
    """
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
    names = distinct_names(images)
    given = [str(path) for path in references]
    with Inspector(loaded, references=given, progress=progress, on_text=on_text) as inspector:
        inspector.prepare(product)
        for number, image in enumerate(images):
            for kind, payload in inspector.stream(image, product=product, instruction=instruction):
                if kind == "step":
                    on_step(payload)
                elif kind == "report":
                    yield payload if out is None else write_files(payload, inspector, out / names[number])
            if progress and len(images) > 1:
                progress("inspecting", number + 1, len(images))


def distinct_names(images: Sequence[Path]) -> list[str]:
    """A folder name per picture: its stem, numbered where stems repeat, without characters that folders dislike."""
    taken: set[str] = set()
    names = []
    for image in images:
        stem = re.sub(r"[^\w.-]+", "_", image.stem)[:80].strip(".") or "picture"
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        names.append(name)
    return names


def write_files(report: InspectionReport, inspector: Inspector, folder: Path) -> InspectionReport:
    """Write overlay.png, heatmap.png and report.json; the returned report names them under ``artifacts``.

    Raises:
        StorageError: the disk refuses.
    """
    artifacts: dict[str, str] = {}
    if report.error is None:
        for name, picture in _pictures(report, inspector):
            path = folder / f"{name}.png"
            write_atomically(path, lambda temporary, picture=picture: picture.save(temporary, format="PNG"))  # type: ignore[misc]
            artifacts[name] = str(path)
    artifacts["report"] = str(folder / "report.json")
    complete = report.model_copy(update={"artifacts": artifacts})
    write_text_atomically(folder / "report.json", complete.model_dump_json(indent=2) + "\n")
    return complete


def _pictures(report: InspectionReport, inspector: Inspector) -> Iterator[tuple[str, Any]]:
    from PIL import Image

    from ..tools.overlay import draw_heatmap, draw_overlay

    deps = inspector.deps
    product = deps.product(report.product)
    picture = report.provenance["picture"]
    rgb = deps.artifacts.get(picture["rgb"])
    anomaly_map = deps.artifacts.get(picture["anomaly_map"]) if picture.get("anomaly_map") else None
    threshold = product.pixel_threshold if product else 1.0
    levels = report.provenance.get("text", {}).get("levels")
    if anomaly_map is not None and levels is not None:  # no product's scale: how far an area stands out of its picture
        anomaly_map = (anomaly_map - levels["median"]) / (levels["threshold"] - levels["median"])
    sx, sy = picture["scale"]
    boxes = [
        ((round(x0 * sx), round(y0 * sy), round(x1 * sx), round(y1 * sy)), region.id)
        for region in report.regions
        for x0, y0, x1, y1 in [region.box]
    ]
    kind = words(report.defect_type.name) if report.defect_type else ""
    place = report.regions[0].place if report.regions else ""
    caption = ", ".join(filter(None, (kind, place))) or Path(report.image).name
    yield "overlay", Image.fromarray(draw_overlay(rgb, anomaly_map, threshold, boxes, report.verdict.value, caption))
    if anomaly_map is not None:
        yield "heatmap", Image.fromarray(draw_heatmap(anomaly_map, threshold))


# --- conversations ----------------------------------------------------------------------------------------------------


@contextmanager
def threads(loaded: LoadedSettings) -> Iterator[Any]:
    """The checkpointer that keeps conversations.

    Raises:
        StorageError: the database cannot be opened or written, or is damaged.
    """
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = loaded.home.threads / "threads.sqlite"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with SqliteSaver.from_conn_string(str(path)) as saver:
            with alone(lock_beside(path)):
                saver.setup()
            yield saver
    except sqlite3.Error as error:
        raise StorageError(
            f"the conversations in {path} cannot be used: {error}.", hint="Move that file away."
        ) from error


@contextmanager
def begin_conversation(
    loaded: LoadedSettings, report: InspectionReport, references: Sequence[Path] = ()
) -> Iterator[Conversation]:
    """A new conversation about a report, with an id of its own."""
    from .conversation import Conversation

    with threads(loaded) as saver:
        conversation = Conversation(InspectionDeps(loaded, ArtifactStore()), saver, uuid.uuid4().hex[:8])
        conversation.start(report, [str(path) for path in references])
        with closing(conversation.deps):
            yield conversation


@contextmanager
def open_conversation(loaded: LoadedSettings, thread_id: str) -> Iterator[Conversation]:
    """A conversation that was begun earlier.

    Raises:
        ConfigError: there is none of that id.
    """
    from .conversation import Conversation

    if not (loaded.home.threads / "threads.sqlite").exists():
        raise ConfigError(f"no conversation with the id {thread_id!r}.", hint="The id is printed when one begins.")
    with threads(loaded) as saver:
        conversation = Conversation(InspectionDeps(loaded, ArtifactStore()), saver, thread_id)
        _ = conversation.report  # raises now rather than at the first question
        with closing(conversation.deps):
            yield conversation
