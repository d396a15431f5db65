"""What is known of a picture before a model is asked: the expert's evidence, raw and calibrated, and retrieved pages.

The steps are those of an inspection (`flawscope.graphs.nodes`), taken one by one, so that arms may leave some out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.artifacts import ArtifactStore
from ...agent.errors import InputError
from ...agent.home import write_json_atomically
from ...agent.inspector import InspectionDeps
from ...agent.reasoner import EvidenceBundle
from ...agent.reasoner.prior_lines import Prior
from ...graphs import evidence as ev
from ...graphs.judging import features_of
from ...graphs.nodes import InspectionNodes
from ...tools.knowledge.categories import CategoryChoice
from ...tools.knowledge.features import image_part
from ...tools.knowledge.schema import GOOD, KnowledgeDocument
from ...tools.product_files import list_products
from ...tools.product_model import ProductModel
from .priors import calibrated_prior, plain_prior, prior_from, raw_prior, shown_map, shrunk
from .questions import Item

if TYPE_CHECKING:
    from ...agent.vision_language.prior import PriorTokens

Mode = Literal["relevance", "paper", "top_k", "mmr", "default"]
MODES: tuple[Literal["relevance", "paper", "top_k", "mmr"], ...] = ("top_k", "mmr", "paper", "relevance")
FORMAT = 1
"""Of the cached evidence."""
MORE = 2
"""Pages that a further search adds."""
TYPE_PAGES = 2
"""Pages about the type that the expert names, as an inspection adds them."""
_KEPT = ("image", "product", "decision", "scores", "defect_type")
_ORDERED = ("documents", "evidence")


@dataclass(frozen=True)
class Round:
    """What a further look adds.

    Attributes:
        name: of the look.
        prior: with the look's score counted in.
        crop: XYXY half-open, px, of the window that was looked at; None for the whole picture.
    """

    name: str
    prior: Prior
    crop: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class PictureEvidence:
    """Everything about one picture.

    Attributes:
        bundle: as a reasoner and the verifier see it.
        prior: calibrated and gated; None without references.
        raw: the same look uncalibrated: raw score, areas by values typical of other products; None without references.
        anomaly_map: float32, at most MAP_PX a side, calibrated to [0, 1]; None without references.
        pages: by way of choosing, best first; ``default`` is the settings'.
        further: pages that a further search adds to the default ones.
        type_pages: pages about the type that the expert names.
        category: the kind of part as predicted from the picture.
        good_pages: pages of good parts of that category's candidates.
        rounds: further looks, in the order in which an inspection takes them.
        s_cal: calibrated probability of a defect.
        similarity: cosine of the nearest page.
        prior_vectors: float32 (17, d), E_c; None without trained prior tokens.
    """

    bundle: EvidenceBundle
    prior: Prior | None
    raw: Prior | None
    anomaly_map: NDArray[np.float32] | None
    pages: Mapping[Mode, tuple[KnowledgeDocument, ...]]
    further: tuple[KnowledgeDocument, ...]
    type_pages: tuple[KnowledgeDocument, ...]
    category: CategoryChoice
    good_pages: tuple[KnowledgeDocument, ...]
    rounds: tuple[Round, ...]
    s_cal: float | None
    similarity: float | None
    prior_vectors: NDArray[np.float32] | None = None

    @classmethod
    def empty(cls) -> PictureEvidence:
        """Of a picture that nobody looked at."""
        bundle = EvidenceBundle(None, None, None, None, calibrated=False)
        return cls(bundle, None, None, None, {}, (), (), CategoryChoice("generic"), (), (), None, None)


@dataclass
class EvidenceSource:
    """Gathers evidence picture by picture, and keeps it in the workshop's home.

    Attributes:
        deps: of the workshop.
        root: of the set.
        prior_tokens: trained tokenizers; None leaves their vectors out.
        live: look at every picture anew and keep nothing, as when its cost is measured.
        looks: take the further looks too.
    """

    deps: InspectionDeps
    root: Path
    prior_tokens: PriorTokens | None = None
    live: bool = False
    looks: bool = True
    _known: dict[str, PictureEvidence] = field(default_factory=dict)

    @property
    def conditions(self) -> dict[str, str]:
        """What evidence depends on beside its picture and product."""
        settings = self.deps.settings
        chosen = f"{settings.documents} {settings.retrieval} {settings.false_alarm}"
        return {"backbone": settings.backbone, "knowledge": self.deps.knowledge.content_hash, "settings": chosen}

    def of(self, item: Item) -> PictureEvidence:
        """The evidence about an item's picture.

        Raises:
            InputError: the picture cannot be read.
            KnowledgeError: the knowledge base failed.
        """
        if self.live or item.image not in self._known:
            self._known[item.image] = self._read(item)
        return self._known[item.image]

    def _read(self, item: Item) -> PictureEvidence:
        """From the cache where it holds this picture, product and knowledge, else gathered anew."""
        name = item.product if item.product in list_products(self.deps.home.products) else None
        product = self.deps.product(name)
        digest = hashlib.sha256((self.root / item.image).read_bytes()).hexdigest()
        fitted = product.fingerprint if product else ""
        conditions = self.conditions
        identity = f"{FORMAT} {digest} {item.product} {fitted} {conditions['knowledge']} {conditions['settings']}"
        path = self.deps.home.root / "evidence" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
        if path.exists() and not self.live:
            facts = json.loads(path.read_text(encoding="utf-8"))
            vectors = None if self.prior_tokens is None else self._vectors(self._seen(item, name), product)
        else:
            state = self._seen(item, name)
            facts = self._gather(item, state, product)
            vectors = self._vectors(state, product)
            if not self.live:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json_atomically(path, facts)
        return self._built(facts, vectors)

    def _seen(self, item: Item, name: str | None) -> Any:
        """State of an inspection up to where the picture was compared with good parts."""
        self.deps.artifacts = ArtifactStore()  # of this picture alone: maps and features of all would not fit
        nodes = InspectionNodes(self.deps)
        state: Any = {"image": str(self.root / item.image), "product": name, "instruction": ""}
        _take(state, nodes.see(state))
        if name is not None:
            _take(state, nodes.localise(state))
        return state

    def _vectors(self, state: Any, product: ProductModel | None) -> NDArray[np.float32] | None:
        """Prior tokens; None without trained ones or without a calibrated map."""
        if self.prior_tokens is None or product is None:
            return None
        return self.prior_tokens.slot(shown_map(state, product, self.deps), features_of(state, self.deps)).vectors

    def _gather(self, item: Item, state: Any, product: ProductModel | None) -> dict[str, Any]:
        """Everything about a picture as plain data."""
        deps = self.deps
        nodes = InspectionNodes(deps)
        features = features_of(state, deps)
        _take(state, nodes.retrieve(state))
        if state.get("scores"):
            _take(state, nodes.classify(state))
        key = image_part(features)
        facts: dict[str, Any] = {"pages": {}, "similarity": None}
        asked: Any = {"product": item.product, "k": deps.settings.documents}
        for mode in MODES:
            found = deps.knowledge.retrieve(key, item.product, mode=mode, **asked)
            facts["pages"][mode] = [page.doc_id for page in found.documents]
            facts["similarity"] = max(found.similarities, default=None)
        further = deps.knowledge.retrieve(
            key, item.product, **{**asked, "k": MORE}, exclude=facts["pages"][deps.settings.retrieval]
        )
        category = deps.knowledge.category(key, None)
        kind = (state.get("defect_type") or {}).get("name", "unknown")
        about = () if kind == "unknown" else deps.knowledge.documents_about(kind, item.product, key)
        facts |= {
            "further": [page.doc_id for page in further.documents],
            "type_pages": [page.doc_id for page in about[:TYPE_PAGES]],
            "category": [category.source, [list(pair) for pair in category.candidates]],
            "state": {name: state.get(name) for name in _KEPT}
            | {name: list(state.get(name, {}).items()) for name in _ORDERED}
            | {"expert": {"regions": state.get("expert", {}).get("regions", [])}, "picture": state["picture"]},
            "prior": None,
        }
        if product is None:
            return facts
        size = state["picture"]["size_px"]
        facts["prior"] = plain_prior(calibrated_prior(state, product, deps))
        facts["raw"] = plain_prior(raw_prior(state, deps, (size[1], size[0])))
        facts["map"] = [[round(float(v), 3) for v in row] for row in shrunk(shown_map(state, product, deps))]
        rounds = self._rounds(nodes, state, product) if self.looks else ()
        facts["rounds"] = [{"name": one.name, "prior": plain_prior(one.prior), "crop": one.crop} for one in rounds]
        return facts

    def _built(self, facts: Mapping[str, Any], vectors: NDArray[np.float32] | None) -> PictureEvidence:
        pages = self.deps.knowledge.documents
        source, candidates = facts["category"]
        category = CategoryChoice(source, tuple((name, share) for name, share in candidates))
        chosen = {mode: tuple(pages[i] for i in ids) for mode, ids in facts["pages"].items()}
        chosen["default"] = chosen[self.deps.settings.retrieval]
        known = facts["prior"] is not None
        state: Any = {**facts["state"], **{name: dict(facts["state"][name]) for name in _ORDERED}}
        return PictureEvidence(
            bundle=ev.bundle(
                _state({k: v for k, v in state.items() if v is not None}), self.deps.settings, final=False
            ),
            prior=prior_from(facts["prior"]) if known else None,
            raw=prior_from(facts["raw"]) if known else None,
            anomaly_map=np.asarray(facts["map"], np.float32) if known else None,
            pages=chosen,
            further=tuple(pages[i] for i in facts["further"]),
            type_pages=tuple(pages[i] for i in facts["type_pages"]),
            category=category,
            good_pages=_good_pages(category, self.deps),
            rounds=tuple(
                Round(one["name"], prior_from(one["prior"]), tuple(one["crop"]) if one["crop"] else None)
                for one in (facts["rounds"] if known else ())
            ),
            s_cal=(facts["state"].get("decision") or {}).get("probability"),
            similarity=facts["similarity"],
            prior_vectors=vectors,
        )

    def _rounds(self, nodes: InspectionNodes, state: Any, product: ProductModel) -> tuple[Round, ...]:
        """The further looks that this picture and product have the material for."""
        found, later = [], _state({**state})
        available = nodes.available(state)
        for name in ("zoom", "reference", "self_consistency"):
            if name not in available:
                continue
            _take(later, getattr(nodes, name)(later))
            _take(later, nodes.classify(later))
            window = later["evidence"]["Z1"]["values"] if name == "zoom" else None
            crop = None if window is None else (window["x0"], window["y0"], window["x1"], window["y1"])
            found.append(Round(name, calibrated_prior(later, product, self.deps), crop))
        return tuple(found)


def _state(plain: dict[str, Any]) -> Any:
    """A state that was put together step by step."""
    return plain


def _good_pages(category: CategoryChoice, deps: InspectionDeps) -> tuple[KnowledgeDocument, ...]:
    pages = deps.knowledge.documents.values()
    found = []
    for name, _ in category.candidates:
        found += [page for page in pages if page.product == name and page.defect_type == GOOD][:1]
    return tuple(found)


def _take(state: Any, update: Mapping[str, Any]) -> None:
    """Merge a step's update into the state as the graph's reducers do.

    Raises:
        InputError: the step failed.
    """
    if update.get("error"):
        raise InputError(f"{state['image']}: {update['error']['message']}")
    for name, value in update.items():
        if name in ("scores", "documents", "evidence"):
            state[name] = {**state.get(name, {}), **value}
        elif name in ("done", "trace"):
            state[name] = [*state.get(name, []), *value]
        else:
            state[name] = value
