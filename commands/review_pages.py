"""Pages of the plant that are made of reviews, and removed with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent.errors import FlawscopeError, KnowledgeError
from .kb_shared import bytes_of, leak_guard, now, plant_store, put_into_effect, refuse_known_picture, refuse_open_bases

if TYPE_CHECKING:
    from ..agent.review.decisions import Decision
    from ..agent.review.items import ReviewItem
    from ..agent.settings import LoadedSettings
    from ..tools.knowledge.plant_page import PlantPage


class PlantPages:
    """The plant's pages that reviews make.

    Args:
        loaded: the settings.
    """

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded

    def add(self, parts: Sequence[tuple[ReviewItem, Decision, str]]) -> dict[str, str]:
        """Make the pages that are not there yet; what becomes of each item's."""
        from ..tools.imaging import load_image
        from ..tools.knowledge.twins import difference_hash

        store, told, written = plant_store(self._loaded), {}, []
        guard = leak_guard(self._loaded)
        with store.locked():
            refuse_open_bases(self._loaded)
            made = {document.page.inspection: document.page.doc_id for document in store.current()}
            for item, decision, reviewer in parts:
                if (name := made.get(_label(item.id))) is not None:
                    told[item.id] = name
                    continue
                try:
                    picture = load_image(item.image, max_pixels=self._loaded.settings.max_pixels)
                    refuse_known_picture(store, guard, picture)
                    page = _page(store.all_ids(), item, decision, reviewer)
                    blob = bytes_of(Path(item.image), item.sha256 or "")
                except FlawscopeError as error:
                    told[item.id] = f"none: {error.message}"
                    continue
                bits = f"{difference_hash(picture.rgb):016x}"
                written.append(store.add(page, blob, bits, action="feedback").version)
                told[item.id] = page.doc_id
            if written:
                put_into_effect(self._loaded, store, written)
        return told

    def remove(self, items: Sequence[str], by: str) -> list[str]:
        """Remove the pages of these items."""
        wanted = {_label(item) for item in items}
        store = plant_store(self._loaded)
        if not wanted or not store.folder.is_dir():
            return []
        with store.locked():
            found = [d.page.doc_id for d in store.current() if d.page.inspection in wanted]
            if found:
                refuse_open_bases(self._loaded)
                put_into_effect(self._loaded, store, [store.remove(name, by) for name in found])
        return found


def _label(item: str) -> str:
    """How a page names the review that it comes from."""
    return f"review {item}"


def _page(taken: Sequence[str], item: ReviewItem, decision: Decision, reviewer: str) -> PlantPage:
    from ..agent.schemas import Verdict
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.feedback import page_of, reviewer_verdict
    from ..tools.knowledge.plant_page import picture_name

    if item.product is None:
        raise KnowledgeError("it names no product.")
    note = decision.note or (decision.defect_type or "").replace("_", " ")
    report = item.report()
    said = reviewer_verdict(
        report,
        verdict=str(decision.verdict),
        defect_type=decision.defect_type if decision.verdict is Verdict.NG else None,
        note=note,
        reviewer=reviewer,
        box=decision.box,
    )
    return page_of(
        report,
        said,
        item.product,
        inspection=_label(item.id),
        doc_id=None,
        taken={*taken, *(page.doc_id for page in shipped_documents())},
        created=now(),
        picture_name=picture_name(Path(item.image)),
    )
