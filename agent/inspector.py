"""The library's front door: an Inspector owns the models and turns pictures into reports."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifacts import ArtifactStore
from .errors import ConfigError
from .home import Home
from .reasoner import Reasoner, load_reasoner
from .reasoner.base import Prepared
from .schemas import InspectionReport
from .settings import LoadedSettings, Settings, load_settings

if TYPE_CHECKING:
    from ..tools.ad_expert.reference_head import ReferenceHead
    from ..tools.ad_expert.text_anchors import TextAnchors
    from ..tools.ad_expert.zero_shot import ZeroShotExpert
    from ..tools.backbones import Backbone
    from ..tools.control_plan.schema import ProductPlan
    from ..tools.control_plan.store import PlanVersion
    from ..tools.knowledge.base import KnowledgeBase
    from ..tools.logic.checks import LogicModel
    from ..tools.product_model import ProductModel
    from .uncertainty.calibrator import Calibrator
    from .vision_language import OnText
    from .vision_language.prior import PriorTokens

Progress = Callable[[str, int, int], None]


@dataclass
class InspectionDeps:
    """What the graph's nodes work with; loaded when first needed, then kept.

    Attributes:
        loaded: settings with their origins.
        artifacts: where arrays go.
        progress: told about long work, None for silence.
        references: good pictures that stand in for an enrolled product.
        products: those in use, by name; a fitted product may be put here without enrolling it.
        on_text: sees a model's answer grow, None for nobody.
        plans: control plans of products in use; None where there is none.
        logic: what good parts hold, by product's fingerprint; made when a check is first asked for.
    """

    loaded: LoadedSettings
    artifacts: ArtifactStore = field(default_factory=ArtifactStore)
    progress: Progress | None = None
    references: tuple[str, ...] = ()
    products: dict[str, ProductModel] = field(default_factory=dict)
    on_text: OnText | None = None
    plans: dict[str, tuple[ProductPlan, PlanVersion] | None] = field(default_factory=dict)
    logic: dict[str, LogicModel] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The values."""
        return self.loaded.settings

    @property
    def home(self) -> Home:
        """The state directory."""
        return self.loaded.home

    @cached_property
    def backbone(self) -> Backbone:
        """The feature extractor."""
        from ..tools.ad_expert.anchor_source import check_words
        from ..tools.backbones import load_backbone

        backbone = load_backbone(self.settings.backbone, self.loaded)
        check_words(backbone, self.loaded)
        return backbone

    @cached_property
    def anchors(self) -> TextAnchors | None:
        """The words that pictures are compared with; None for a backbone without a text tower."""
        from ..tools.ad_expert.anchor_source import configured_anchors

        return configured_anchors(self.backbone, self.loaded)

    @cached_property
    def head(self) -> ReferenceHead | None:
        """The trained head that whole pictures are scored with; None when none is set."""
        if self.settings.trained_head is None:
            return None
        from ..tools.ad_expert.head_file import configured_head

        return configured_head(self.backbone, self.loaded)

    @cached_property
    def zero_shot(self) -> ZeroShotExpert | None:
        """The expert for pictures without references; None for a backbone without a text tower."""
        from ..tools.ad_expert.anchor_source import configured_picture_prompts, configured_type_prompts
        from ..tools.ad_expert.zero_shot import ZeroShotConfig, ZeroShotExpert

        if not self.backbone.has_text:
            return None
        prompted = configured_picture_prompts(self.backbone, self.loaded)
        anchors = self.anchors if prompted is None else None
        type_prompts = configured_type_prompts(self.backbone, self.home)
        config = ZeroShotConfig(self.settings.loc_mode)
        return ZeroShotExpert(self.backbone, anchors, config, type_prompts, prompted)

    @cached_property
    def reasoner(self) -> Reasoner:
        """Who composes the report."""
        return load_reasoner(self.loaded, on_text=self.on_text)

    @cached_property
    def prior_tokens(self) -> PriorTokens | None:
        """What writes the expert's evidence as vectors into prompts; None when none is set.

        Raises:
            WeightsError: the file cannot be used, or was made for another backbone or model.
            ConfigError: the reasoner's model takes no vectors.
        """
        if self.settings.prior_tokens is None:
            return None
        model = getattr(self.reasoner, "model", None)
        if model is None or self.settings.reasoner != "qwen_vl":
            raise ConfigError(
                f"the reasoner {self.reasoner.name} takes no prior tokens.",
                hint="Unset prior_tokens, or set the reasoner to qwen_vl.",
            )
        from .vision_language.prior import load_prior_tokens

        return load_prior_tokens(self.settings.prior_tokens, model, self.backbone.weights_sha256)

    @cached_property
    def calibrator(self) -> Calibrator | None:
        """What says how often such answers are right; None when none is set.

        Raises:
            WeightsError: the file cannot be used.
            ConfigError: it was fitted to another reasoner's answers.
        """
        if self.settings.calibrator is None:
            return None
        from .uncertainty.calibrator import load_calibrator

        calibrator = load_calibrator(self.settings.calibrator)
        calibrator.refuse_model(self.reasoner.name)
        return calibrator

    @cached_property
    def knowledge(self) -> KnowledgeBase:
        """The knowledge base; built on first use."""
        from ..tools.knowledge.builder import open_knowledge_base
        from ..tools.knowledge.milvus_server import MilvusServer
        from ..tools.knowledge.retriever import configured_retriever

        return open_knowledge_base(
            self.home.knowledge,
            self.backbone,
            store=self.settings.store,
            server=MilvusServer.configured(self.settings),
            projection=configured_retriever(self.settings, self.backbone),
            progress=self.progress,
        )

    @cached_property
    def ad_hoc(self) -> ProductModel:
        """The product fitted to ``references``."""
        from ..tools.ad_expert.zero_shot import ZeroShotConfig
        from ..tools.enrolment import fit_product

        return fit_product(
            "ad hoc",
            self.references,
            self.backbone,
            max_pixels=self.settings.max_pixels,
            anchors=self.anchors,
            words=ZeroShotConfig(self.settings.loc_mode),
            head=self.head,
            progress=self.progress,
        )

    def product(self, name: str | None) -> ProductModel | None:
        """The enrolled product, or the ad-hoc one, or None when neither was asked for.

        Raises:
            ProductError: there is no such product, or it is damaged.
        """
        if self.references:
            return self.ad_hoc
        if name is None:
            return None
        if name not in self.products:
            from ..tools.product_files import load_product

            found = load_product(self.home.products, name, self.backbone, self.head)
            if (planned := self.plan(name)) is not None:
                from ..tools.control_plan.enrolled import refuse_other_regions

                refuse_other_regions(planned[0], found.expert.config)
            self.products[name] = found
        return self.products[name]

    def plan(self, name: str | None) -> tuple[ProductPlan, PlanVersion] | None:
        """The product's control plan and its version, None without one; read once.

        Raises:
            ProductError: it is damaged.
        """
        if name is None:
            return None
        if name not in self.plans:
            folder = self.home.root / "plans"
            if (folder / name).is_dir():
                from ..tools.control_plan.store import PlanStore

                self.plans[name] = PlanStore(folder).plan(name)
            else:
                self.plans[name] = None
        return self.plans[name]

    def close(self) -> None:
        """Let go of the knowledge base and of the reasoner's model, where they were opened."""
        let_go = getattr(getattr(self.__dict__.get("reasoner"), "model", None), "close", None)
        if let_go is not None:
            let_go()
            for name in ("reasoner", "prior_tokens"):
                self.__dict__.pop(name, None)
        if "knowledge" in self.__dict__:
            self.knowledge.close()
            del self.__dict__["knowledge"]


class Inspector:
    """Inspects pictures.

    Example:
        >>> with Inspector() as inspector:                          # doctest: +SKIP
        ...     report = inspector.inspect("part.jpg", product="transistor")
        ...     report.verdict
        <Verdict.NG: 'NG'>

    Args:
        settings: from ``load_settings``; the defaults, environment and profile when None.
        references: good pictures to compare with instead of an enrolled product.
        progress: called with (what, done, total) during long work.
        checkpointer: any LangGraph checkpointer; needed only to interrupt for a person and to resume.
        on_text: sees a model's answers grow, piece by piece.
    """

    def __init__(
        self,
        settings: LoadedSettings | None = None,
        *,
        references: Sequence[str | Path] = (),
        progress: Progress | None = None,
        checkpointer: Any = None,
        on_text: OnText | None = None,
    ) -> None:
        loaded = settings or load_settings()
        artifacts = ArtifactStore(loaded.home.artifacts if checkpointer is not None else None)
        self.deps = InspectionDeps(loaded, artifacts, progress, tuple(str(path) for path in references))
        self.deps.on_text = on_text
        self._checkpointer = checkpointer
        if loaded.settings.ask_human and checkpointer is None:
            raise ConfigError("asking a person needs a checkpointer, or the question could never be answered.")

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the knowledge base and of the reasoner's model."""
        self.deps.close()

    @cached_property
    def graph(self) -> Any:
        """The compiled inspection graph."""
        from ..graphs.inspection import build_inspection_graph

        if self.deps.references:
            _ = self.deps.ad_hoc  # unreadable references fail here, before the first picture
        return build_inspection_graph(self.deps, self._checkpointer)

    def prepare(self, product: str | None = None) -> None:
        """Load what every picture needs, so that what is wrong with it is said once and before the first picture.

        Args:
            product: an enrolled product, or None.

        Raises:
            FlawscopeError: the product, the references, the weights or the knowledge base cannot be used.
        """
        _ = self.deps.head
        if self.deps.product(product) is None:
            _ = self.deps.zero_shot
        if isinstance(self.deps.reasoner, Prepared):
            self.deps.reasoner.prepare()
        _ = self.deps.calibrator
        _ = self.deps.prior_tokens
        _ = self.deps.knowledge

    def inspect(
        self, image: str | Path, *, product: str | None = None, instruction: str = "", thread_id: str | None = None
    ) -> InspectionReport:
        """Inspect one picture.

        A picture that cannot be inspected gives a report with ``error`` and the verdict REVIEW; it does not raise.

        Args:
            image: its path.
            product: an enrolled product; None with ad-hoc references, or for a first look without references.
            instruction: what is asked, for retrieval and the reasoner.
            thread_id: names the run for a checkpointer.

        Raises:
            FlawscopeError: the inspector itself cannot work (settings, weights, references).
        """
        report: InspectionReport | None = None
        for kind, payload in self.stream(image, product=product, instruction=instruction, thread_id=thread_id):
            if kind == "report":
                report = payload
        if report is None:
            raise ConfigError("the inspection waits for a person; resume its thread with their decision.")
        return report

    def stream(
        self, image: str | Path, *, product: str | None = None, instruction: str = "", thread_id: str | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Inspect one picture and tell each step as it ends.

        Yields:
            ``("step", name)`` after each step, ``("interrupt", payload)`` when a person is asked, and at last
            ``("report", InspectionReport)``.
        """
        if product is not None and self.deps.references:
            raise ConfigError("this inspector compares with references: give either them or a product, not both.")
        self._refuse_to_drop_a_question(thread_id)
        given = {"image": str(image), "product": product, "instruction": instruction}
        yield from self._run(given, thread_id)

    def resume(self, thread_id: str, decision: dict[str, Any]) -> InspectionReport:
        """Answer the question that an interrupted run asked.

        Args:
            thread_id: the run.
            decision: ``{"verdict": "OK"|"NG"|"REVIEW", "note": str, "by": str}``.

        Raises:
            ConfigError: there is no checkpointer, nothing waits under that id, or the decision is none.
        """
        from langgraph.types import Command

        from ..graphs.evidence import checked_answer

        checked_answer(decision)
        if self._checkpointer is None:
            raise ConfigError("resuming needs a checkpointer.")
        if not self.graph.get_state({"configurable": {"thread_id": thread_id}}).next:
            raise ConfigError(f"no inspection waits under the id {thread_id!r}.")
        for kind, payload in self._run(Command(resume=decision), thread_id):
            if kind == "report":
                report: InspectionReport = payload
                return report
        raise ConfigError(f"the inspection {thread_id!r} asked again; resume it once more.")

    def _refuse_to_drop_a_question(self, thread_id: str | None) -> None:
        if thread_id is None or self._checkpointer is None:
            return
        if self.graph.get_state({"configurable": {"thread_id": thread_id}}).next:
            raise ConfigError(
                f"the inspection {thread_id!r} is not finished.", hint="Resume it, or use another thread id."
            )

    def _run(self, given: Any, thread_id: str | None) -> Iterator[tuple[str, Any]]:
        from ..tools.blas import single_blas_thread

        config = {"configurable": {"thread_id": thread_id or uuid.uuid4().hex}}
        graph = self.graph  # built first: fitting ad-hoc references may use all threads
        with single_blas_thread():
            for update in graph.stream(given, config, stream_mode="updates"):
                for name, change in update.items():
                    if name == "__interrupt__":
                        yield "interrupt", change[0].value
                    elif name == "report":
                        yield "report", InspectionReport.model_validate(change["report"])
                    else:
                        yield "step", name
