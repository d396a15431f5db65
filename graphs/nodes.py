"""The steps of an inspection. A step reads the state, calls the tools and returns what changed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..agent.errors import ConfigError, FlawscopeError, KnowledgeUnreachableError
from ..agent.reasoner import DraftReport
from ..agent.reasoner.base import (
    AsksAgain,
    EvidenceBundle,
    LatentReasoner,
    ReasonerReply,
    Refuter,
    Settles,
    wants_pictures,
)
from ..agent.verifier import verify
from ..tools import views
from ..tools.backbones import VisualFeatures
from ..tools.imaging import load_image
from ..tools.knowledge.categories import CategoryKnowledge, category_knowledge
from ..tools.knowledge.features import image_part
from . import evidence as ev
from . import zero_shot
from .doubt import Again, again_evidence, assessed, doubt_in_words, to_be_asked_again
from .judging import Judge, features_of
from .planned import planned_evidence
from .refuting import applied, as_state, outcome
from .report import compose_report, failure_report
from .routing import VIEW_ACTIONS, doubtful, next_action
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.inspector import InspectionDeps
    from ..tools.product_model import ProductModel

Update = dict[str, Any]
Node = TypeVar("Node", bound=Callable[..., Update])
MORE_DOCUMENTS = 2
"""Documents that a ``more_docs`` round adds."""
NOT_MEASURED = "G5 (whether it spoils good parts) was not measured: no latent_normals is set"


def step(node: Node) -> Node:
    """Time a step, and turn a named failure into state: the picture's report then says what went wrong.

    Only FlawscopeError is caught; anything else is a defect of the program and must be seen.
    """

    @functools.wraps(node)
    def run(self: InspectionNodes, state: InspectionState) -> Update:
        if state.get("error"):
            return {}
        begun, name = time.perf_counter(), node.__name__.lstrip("_")
        try:
            update = node(self, state)
        except FlawscopeError as error:
            failure = {"code": error.code, "message": str(error), "exit_code": error.exit_code, "step": name}
            return {"error": failure}
        entry = {
            "action": name,
            "entropy_before": state.get("entropy"),
            "entropy_after": update.get("entropy", state.get("entropy")),
            "seconds": time.perf_counter() - begun,
            "note": update.pop("note", ""),
        }
        return {**update, "trace": [entry]}

    return run  # type: ignore[return-value]


class InspectionNodes:
    """The nodes, bound to what they work with."""

    def __init__(self, deps: InspectionDeps) -> None:
        self.deps = deps
        self._judge = Judge(deps)

    # --- seeing -----------------------------------------------------------------------------------------------------

    def see(self, state: InspectionState) -> Update:
        """Load and encode in one step of the graph, as every step costs most of a millisecond.

        It also forgets the picture before: no score or failure of another part may count. A thread may be used again;
        what its reducers kept then is overwritten.
        """
        asked: Any = {key: state.get(key) for key in ("image", "product", "instruction")}
        loaded = self.load(asked)
        encoded = self.encode(asked | loaded)
        update = {**loaded, **encoded, "trace": [*loaded.get("trace", ()), *encoded.get("trace", ())]}
        blank: Update = {key: {} for key in ("picture", "features", "expert", "draft", "decision", "gate")}
        blank |= dict.fromkeys(("human", "entropy", "defect_type", "refutation"))
        blank |= {"entropy_source": "", "doubt": {}, "answer": {}, "again": {}, "problems": []}
        blank |= {"fatal": False, "started": time.time()}
        kept: Update = {"scores": {}, "documents": {}, "evidence": {}, "done": [], "trace": [], "error": None}
        kept |= {key: value for key, value in update.items() if key in kept}
        if state.get("trace") or state.get("error"):
            from langgraph.types import Overwrite

            kept = {key: Overwrite(value) for key, value in kept.items()}
        return {**blank, **update, **kept}

    @step
    def load(self, state: InspectionState) -> Update:
        """Decode the picture."""
        product = self._product(state)
        picture = load_image(
            state["image"],
            value_range=product.value_range if product else None,
            max_pixels=self.deps.settings.max_pixels,
        )
        height, width = picture.rgb.shape[:2]
        return {
            "picture": {
                "sha256": picture.sha256,
                "rgb": self.deps.artifacts.put(picture.rgb),
                "size_px": [width, height],
                "original_size_px": list(picture.meta.orig_size_px),
                "scale": [picture.meta.scale_x, picture.meta.scale_y],
                "flags": list(picture.meta.flags),
            },
            "evidence": ev.quality_evidence(picture.meta),
            "note": f"{width}x{height} px",
        }

    @step
    def encode(self, state: InspectionState) -> Update:
        """One forward pass; localising and retrieving share it."""
        product = self._product(state)
        features = views.encode(self.deps.backbone, product, self._rgb(state))
        put = self.deps.artifacts.put
        return {
            "features": {
                "tokens": [put(layer) for layer in features.patch_tokens],
                "global": put(features.global_features),
                "grid": list(features.grid),
            }
        }

    @step
    def localise(self, state: InspectionState) -> Update:
        """AD Expert: anomaly_map, image_score, regions, by comparison with references; without any, with words."""
        product = self._product(state)
        if "constant" in state["picture"]["flags"]:
            return {"expert": {"regions": []}, "note": "constant picture"}
        if product is None:
            return zero_shot.localise(self._features(state), self._rgb(state), state["picture"], self.deps)
        found = product.localise(self._features(state), self._rgb(state))
        regions = views.original_regions(product.regions(found.anomaly_map), state["picture"])
        put = self.deps.artifacts.put
        further = {"tiles": found.tile_score, "text": found.text_score}
        further = {view: score for view, score in further.items() if score is not None}
        planned = planned_evidence(self._features(state), self._rgb(state), regions, product, self.deps)
        return {
            "expert": {
                "anomaly_map": put(found.anomaly_map),
                "patch_scores": put(found.patch_scores),
                "regions": regions,
                "peak_px": views.peak_of(found.anomaly_map),
            },
            "scores": {"whole": found.image_score, **further},
            "evidence": {**ev.region_evidence(regions), **planned},
            "note": f"score {found.image_score:.4g}, {len(regions)} regions",
        }

    @step
    def retrieve(self, state: InspectionState) -> Update:
        """Q2K: key features of the whole picture against the lock features of the documents."""
        key = image_part(self._features(state))
        found = self._retrieve(state, key, self.deps.settings.documents, exclude=())
        return {**found, "features": {**state["features"], "key": self.deps.artifacts.put(key)}}

    # --- judging ----------------------------------------------------------------------------------------------------

    @step
    def classify(self, state: InspectionState) -> Update:
        """Decision from all views so far; for a suspicious part also its type, and the pages about that type."""
        product = self._product(state)
        if not state.get("scores"):
            return {"decision": {}, "defect_type": None}
        return applied(self._judge.judge(state, product), state.get("refutation"))

    @step
    def reason(self, state: InspectionState) -> Update:
        """Let the reasoner compose the report's words from the evidence."""
        rgb, category = [self._rgb(state)], self._category(state)
        reasoner, gate = self.deps.reasoner, state.get("gate") or self._gate(state)
        seen = self._shown({**state, "gate": gate}, category)
        if state.get("done", [])[-1:] == ["latent"] and isinstance(reasoner, LatentReasoner):
            reply = reasoner.think(seen, rgb, DraftReport)
        else:
            reply = reasoner.reason(seen, rgb, DraftReport)
        again, signs, told = self._again(state, seen, reply)
        assess = assessed(state, reply, self.deps.calibrator, reasoner.name, again)
        ahead: Any = {**state, **assess, "entropy": reply.entropy, "draft": reply.draft.model_dump(mode="json")}
        ahead["fatal"] = False
        settings = self.deps.settings
        calibrated = state.get("decision", {}).get("probability") is not None
        if calibrated and doubtful(ahead, settings) and next_action(ahead, settings, self.available(state)) is None:
            last = replace(seen, final=True, doubt=doubt_in_words(assess["doubt"]))
            if isinstance(reasoner, Settles):
                reply = reasoner.settle(reply, last)
            else:
                reply = reasoner.reason(last, rgb, DraftReport)
        return {
            "draft": reply.draft.model_dump(mode="json"),
            "entropy": reply.entropy,
            **assess,
            "again": again,
            "answer": {
                "parts": {**reply.parts, **signs},
                "usage": dict(reply.usage),
                "logprobs": reply.token_logprobs,
                **({"said": dict(reply.said)} if reply.said else {}),
            },
            "problems": list(reply.problems),
            **({"gate": gate} if gate else {}),
            "evidence": {**(ev.told_evidence(seen) if gate else {}), **told},
            "category": {"source": category.choice.source, "candidates": [list(c) for c in category.choice.candidates]},
            "note": "; ".join(filter(None, (reply.draft.verdict.value, self._left_out()))),
        }

    def _again(
        self, state: InspectionState, seen: EvidenceBundle, reply: ReasonerReply
    ) -> tuple[Again, dict[str, float | None], dict[str, Any]]:
        """What a doubtful model said when it was asked again, now or before; its signs of doubt and their evidence."""
        reasoner, again = self.deps.reasoner, state.get("again", {})
        if to_be_asked_again(state, reply.entropy, self.deps.settings) and isinstance(reasoner, AsksAgain):
            asked = reasoner.ask_again(seen, [self._rgb(state)])
            again = {"samples": list(asked.samples), "permuted": list(asked.permuted)}
        if not again:
            return {}, {}, {}
        return again, *again_evidence(again, reply.draft.verdict.value)

    @step
    def verify(self, state: InspectionState) -> Update:
        """Check every sentence against the evidence."""
        bundle = ev.bundle(state, self.deps.settings, final=False)
        checked = verify(DraftReport.model_validate(state["draft"]), bundle)
        return {
            "draft": checked.draft.model_dump(mode="json"),
            "problems": [*state.get("problems", []), *(problem.text for problem in checked.problems)],
            "fatal": checked.fatal,
            "note": f"{len(checked.problems)} contradictions" if checked.problems else "",
        }

    # --- more evidence ----------------------------------------------------------------------------------------------

    def available(self, state: InspectionState) -> frozenset[str]:
        """Actions for which this picture and product have the material."""
        if state.get("error"):
            return frozenset()  # the failure may be that there is no such product
        product = self._product(state)
        if product is None or "peak_px" not in state.get("expert", {}):
            return frozenset()
        told = state.get("evidence", {})  # that pages cannot be searched, or that none of them is near
        documents = set() if ev.AWAY_ID in told or ev.UNFAMILIAR_ID in told else {"more_docs"}
        return frozenset(VIEW_ACTIONS & set(product.calibration.views) | documents | self._asked_of_models(state))

    def _asked_of_models(self, state: InspectionState) -> set[str]:
        """Actions that only a reasoner with a model of its own can take."""
        offered: set[str] = set()
        if isinstance(self.deps.reasoner, Refuter) and state["expert"]["regions"]:
            offered.add("refute")
        if self._latent() is not None and not self._left_out():
            offered.add("latent")
        return offered

    def _latent(self) -> LatentReasoner | None:
        """The reasoner where it may search; None where it cannot or is not set to."""
        reasoner = self.deps.reasoner
        return reasoner if self.deps.settings.latent and isinstance(reasoner, LatentReasoner) else None

    def _left_out(self) -> str:
        """Why the search is never taken although it is set (guard G5); empty where it may be."""
        latent = self._latent()
        normals = None if latent is None else latent.normals
        return "" if normals is None or normals.hold else f"latent is left out, {normals.sentence}"

    @step
    def zoom(self, state: InspectionState) -> Update:
        """Look at the most suspicious place again at twice the resolution."""
        return self._view("zoom", state)

    @step
    def reference(self, state: InspectionState) -> Update:
        """Compare place by place with the most similar good references."""
        return self._view("reference", state)

    @step
    def self_consistency(self, state: InspectionState) -> Update:
        """Score slightly shifted and dimmed copies: a finding that depends on the pixel grid does not survive."""
        return self._view("self_consistency", state)

    @step
    def more_docs(self, state: InspectionState) -> Update:
        """Fetch pages not seen yet, with the suspicious area as the key."""
        weights = self.deps.artifacts.get(state["expert"]["patch_scores"]).ravel()
        key = image_part(self._features(state), np.asarray(weights, dtype=np.float32))
        seen = tuple(document["doc_id"] for document in state.get("documents", {}).values())
        return {**self._retrieve(state, key, MORE_DOCUMENTS, exclude=seen), "done": ["more_docs"]}

    @step
    def refute(self, state: InspectionState) -> Update:
        """Let the model explain the suspicion as normal variation; what it then still believes is new evidence."""
        reasoner = self.deps.reasoner
        assert isinstance(reasoner, Refuter)  # noqa: S101  # available() offers it only then
        tried = reasoner.refute(self._shown(state, None), [self._rgb(state)])
        return {"refutation": as_state(tried), "done": ["refute"], "note": outcome(tried)}

    @step
    def latent(self, state: InspectionState) -> Update:
        """Let the next round search in the model's embedding space before it answers."""
        reasoner = self.deps.reasoner
        assert isinstance(reasoner, LatentReasoner)  # noqa: S101  # available() offers it only then
        return {"done": ["latent"], "note": NOT_MEASURED if reasoner.normals is None else reasoner.normals.sentence}

    def _view(self, name: str, state: InspectionState) -> Update:
        product = self._product(state)
        assert product is not None  # noqa: S101  # available() offers views only for products
        seen = views.VIEWS[name](product, self._rgb(state), self._features(state), tuple(state["expert"]["peak_px"]))
        return {
            "scores": {name: seen.score},
            "evidence": ev.view_evidence(name, seen),
            "done": [name],
            "note": seen.note,
        }

    # --- ending -----------------------------------------------------------------------------------------------------

    def human(self, state: InspectionState) -> Update:
        """Ask a person, again if the answer is none. The node runs from its top on resume, so it only asks."""
        from langgraph.types import interrupt

        question = ev.question_for_a_person(state)
        while True:
            try:
                return {"human": ev.checked_answer(interrupt(question))}
            except ConfigError as error:
                question = {**question, "problem": str(error)}

    def report(self, state: InspectionState) -> Update:
        """Compose the report; a failure becomes a report too."""
        report = failure_report(state, self.deps) if state.get("error") else compose_report(state, self.deps)
        return {"report": report.model_dump(mode="json")}

    # --- what the steps share ---------------------------------------------------------------------------------------

    def _product(self, state: InspectionState) -> ProductModel | None:
        return self.deps.product(state.get("product"))

    def _rgb(self, state: InspectionState) -> Any:
        return self.deps.artifacts.get(state["picture"]["rgb"])

    def _features(self, state: InspectionState) -> VisualFeatures:
        return features_of(state, self.deps)

    def _gate(self, state: InspectionState) -> dict[str, Any]:
        """What of the map a model may be told; nothing is computed for a reasoner that looks at no pictures."""
        if not wants_pictures(self.deps.reasoner):
            return {}
        from .pictures import gate_of

        return gate_of(state, self.deps, self._product(state))

    def _shown(self, state: InspectionState, category: CategoryKnowledge | None) -> EvidenceBundle:
        """The evidence, with pictures for a reasoner that looks at them."""
        seen = ev.bundle(state, self.deps.settings, final=False, category=category)
        if not wants_pictures(self.deps.reasoner):
            return seen
        from .pictures import shown

        return shown(seen, state, self.deps, self._product(state))

    def _category(self, state: InspectionState) -> CategoryKnowledge:
        """What the knowledge base says about the kind of part: the operator's, else the predicted one."""
        knowledge, kind = self.deps.knowledge, state.get("defect_type") or {}
        choice = knowledge.category(self.deps.artifacts.get(state["features"]["key"]), state.get("product"))
        types = {candidate["name"]: candidate["posterior"] for candidate in kind.get("candidates", [])}
        return category_knowledge(choice, knowledge.documents.values(), types, seed=state["picture"]["sha256"])

    def _retrieve(self, state: InspectionState, key: Any, k: int, exclude: tuple[str, ...]) -> Update:
        product = state.get("product")
        try:
            found = self.deps.knowledge.retrieve(
                key,
                " ".join(filter(None, (product, state.get("instruction")))),
                product=product,
                k=k,
                mode=self.deps.settings.retrieval,
                exclude=exclude,
                words=state.get("instruction") or "",
            )
        except KnowledgeUnreachableError as error:
            if self.deps.settings.knowledge_required:
                raise
            return {"evidence": ev.away_evidence(error, bool(exclude)), "note": error.message}
        if found.familiarity.known is False:
            # A further look asks with a part of the picture; that nothing is near that says nothing of the whole one.
            told = {} if exclude else {"evidence": ev.unfamiliar_evidence(found.familiarity)}
            return {**told, "note": found.familiarity.sentence}
        pairs = list(zip(found.documents, found.similarities, strict=True))
        documents = ev.document_records(pairs, first=len(state.get("documents", {})) + 1)
        return {
            "documents": documents,
            "evidence": ev.document_evidence(documents),
            "note": ", ".join(document["doc_id"] for document in documents.values()),
        }
