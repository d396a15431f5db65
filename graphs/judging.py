"""The judgement of a part: the decision, the type of its defect, and the pages about that type or a like part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..agent.reasoner.evidence import UNKNOWN
from ..tools import views
from ..tools.backbones import VisualFeatures
from ..tools.defect_features import defect_weights
from ..tools.knowledge.features import image_part
from ..tools.knowledge.plant import FOLDER, PlantStore
from ..tools.knowledge.resemblance import PlantDeviations, candidates, plant_deviations
from . import evidence as ev
from . import zero_shot
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.inspector import InspectionDeps
    from ..tools.product_model import ProductModel

Update = dict[str, Any]
PAGES_OF_A_TYPE = 2
"""Pages that are added about the type that was named."""


def features_of(state: InspectionState, deps: InspectionDeps) -> VisualFeatures:
    """What the backbone made of the picture."""
    get, refs = deps.artifacts.get, state["features"]
    grid = (int(refs["grid"][0]), int(refs["grid"][1]))
    return VisualFeatures(tuple(get(ref) for ref in refs["tokens"]), get(refs["global"]), grid)


class Judge:
    """Judges parts from the scores of all views so far.

    Args:
        deps: what it works with; how the parts on the plant's pages deviate is kept for each product.
    """

    def __init__(self, deps: InspectionDeps) -> None:
        self.deps = deps
        self._plant: dict[str, PlantDeviations | None] = {}

    def judge(self, state: InspectionState, product: ProductModel | None) -> Update:
        """The decision; for a suspicious part also its type, and the pages about that type.

        Args:
            state: with the score of one view at least.
            product: that the part is compared with; None when words alone look at it.
        """
        scores = state["scores"]
        if product is None:
            judged = zero_shot.judge(state)
            if (named := zero_shot.shortlist(state)) is not None:
                self._add_type(state, named, None, judged)
            return judged
        decision = product.calibration.decide(scores, self.deps.loaded.false_alarm_of(product.false_alarm))
        facts = {
            "score": decision.score,
            "threshold": decision.threshold,
            "probability": decision.probability,
            "p_value": decision.p_value,
            "basis": decision.basis,
            "contradicting": list(decision.contradicting),
            "references": len(product.reference_names),
        }
        update: Update = {"decision": facts, "evidence": ev.score_evidence(facts, scores), "defect_type": None}
        if decision.score is None or decision.threshold is None or decision.score >= 0.5 * decision.threshold:
            self._name_type(state, product, update)
        alarming = (
            decision.score is not None and decision.threshold is not None and decision.score >= decision.threshold
        )
        if alarming and not state["expert"]["regions"]:
            get, seen = self.deps.artifacts.get, state["expert"]
            found = product.place_of_alarm(get(seen["anomaly_map"]), get(seen["patch_scores"]), scores["whole"])
            regions = views.original_regions([found], state["picture"])
            update["expert"] = {**state["expert"], "regions": regions}
            update["evidence"] = {**update["evidence"], **ev.region_evidence(regions)}
        if alarming and (update["defect_type"] or {}).get("name", UNKNOWN) == UNKNOWN:
            self._add_resembled(state, product, update)
        return update

    def _add_resembled(self, state: InspectionState, product: ProductModel, update: Update) -> None:
        """A page of the plant whose part deviates as this one does; it changes what is said and no verdict."""
        if product.fingerprint not in self._plant:
            pages = candidates(self.deps.knowledge.documents.values(), product.name)
            store = PlantStore(self.deps.home.knowledge / FOLDER)
            self._plant[product.fingerprint] = plant_deviations(product, pages, store)
        plant = self._plant[product.fingerprint]
        scores = np.asarray(self.deps.artifacts.get(state["expert"]["patch_scores"]), np.float32)
        found = None if plant is None else plant.resembled(features_of(state, self.deps), scores)
        if found is None:
            return
        known = {**state.get("documents", {}), **update.get("documents", {})}
        item_id = next((i for i, document in known.items() if document["doc_id"] == found.page.doc_id), None)
        fresh = ev.document_records([(found.page, None)], first=len(known) + 1) if item_id is None else {}
        item_id = item_id or next(iter(fresh))
        document = {**(fresh or known)[item_id], "resemblance": found.similarity}
        update["documents"] = {**update.get("documents", {}), item_id: document}
        update["evidence"] = {**update["evidence"], **ev.document_evidence({item_id: document})}

    def _name_type(self, state: InspectionState, product: ProductModel, update: Update) -> None:
        scores = self.deps.artifacts.get(state["expert"]["patch_scores"])
        kind = product.name_type(features_of(state, self.deps), scores)
        if kind is not None:
            self._add_type(state, kind, product.name, update)

    def _add_type(
        self,
        state: InspectionState,
        kind: dict[str, Any],
        product: str | None,
        update: Update,
    ) -> None:
        """The type comparison, and the pages about the type that it names."""
        update["defect_type"] = kind
        update["evidence"] = {**update["evidence"], **ev.type_evidence(kind)}
        known = state.get("documents", {})
        scores = np.asarray(self.deps.artifacts.get(state["expert"]["patch_scores"]), np.float32)
        area = image_part(features_of(state, self.deps), defect_weights(scores))
        pages = () if kind["name"] == "unknown" else self.deps.knowledge.documents_about(kind["name"], product, area)
        have = {document["doc_id"] for document in known.values()}
        fresh = [(page, None) for page in pages[:PAGES_OF_A_TYPE] if page.doc_id not in have]
        documents = ev.document_records(fresh, first=len(known) + 1)
        update["documents"] = documents
        update["evidence"] = {**update["evidence"], **ev.document_evidence(documents)}
