"""What works on this machine and what is missing."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from .errors import FlawscopeError, MissingExtraError, StorageError
from .home import storage_errors
from .settings import LoadedSettings

OPTIONAL = {"torch": "CLIP and language-model profiles", "imagecodecs": "unusual TIFF compressions"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        what: the part.
        state: ``ok``, ``optional`` (absent and not needed) or ``broken``.
        detail: what was found, and what to do when it is broken.
        exit_code: for broken parts.
    """

    what: str
    state: Literal["ok", "optional", "broken"]
    detail: str
    exit_code: int = 0


def examine(loaded: LoadedSettings) -> Iterator[Finding]:
    """Check each part by using it."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("flawscope", "onnxruntime", "langgraph", "pymilvus", "milvus-lite"):
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "broken", "not installed. Reinstall flawscope.", 8)
    checks: tuple[tuple[str, Callable[[LoadedSettings], str]], ...] = (
        ("state directory", _home),
        ("backbone", _backbone),
        ("reasoner", _reasoner),
        ("products", _products),
        ("knowledge base", _knowledge),
    )
    for what, check in checks:
        try:
            yield Finding(what, "ok", check(loaded))
        except FlawscopeError as error:
            yield Finding(what, "broken", str(error), error.exit_code)
    yield _trained_prompts(loaded)
    yield _calibrator(loaded)
    yield _language_model(loaded)
    for package, use in OPTIONAL.items():
        found = importlib.util.find_spec(package) is not None
        yield Finding(package, "ok" if found else "optional", use)


def _language_model(loaded: LoadedSettings) -> Finding:
    """What the configured server can do, found out by asking it; most parts are inspected without one."""
    what = "language model"
    if loaded.settings.llm_base_url is None:
        return Finding(what, "optional", "none set (FLAWSCOPE_LLM_BASE_URL); kb expand needs one")
    from .language_model import ChatClient, configured_endpoint, probe

    try:
        with ChatClient(configured_endpoint(loaded.settings)) as client:
            return Finding(what, "ok", f"{loaded.settings.llm_base_url}: {probe(client).describe()}")
    except FlawscopeError as error:
        if loaded.settings.reasoner == "openai_api":
            return Finding(what, "broken", str(error), error.exit_code)
        return Finding(what, "optional", str(error))


def _calibrator(loaded: LoadedSettings) -> Finding:
    """What says how often answers are right; without one a model's reports say that they are uncalibrated."""
    what = "calibrator"
    if loaded.settings.calibrator is None:
        return Finding(what, "optional", "none set (FLAWSCOPE_CALIBRATOR); bench calibrate fits one")
    from .uncertainty.calibrator import load_calibrator

    try:
        calibrator = load_calibrator(loaded.settings.calibrator)
        calibrator.refuse_model(loaded.settings.reasoner)
    except FlawscopeError as error:
        return Finding(what, "broken", str(error), error.exit_code)
    return Finding(what, "ok", f"{calibrator.answers} answers of {calibrator.model}, sha256 {calibrator.sha256[:12]}…")


def _trained_prompts(loaded: LoadedSettings) -> Finding:
    """The words of one's own that pictures are compared with, and whether the backbone can be asked about them."""
    what = "trained prompts"
    if loaded.settings.trained_prompts is None:
        return Finding(what, "optional", "none set (FLAWSCOPE_TRAINED_PROMPTS); train expert makes them for CLIP")
    from ..tools.ad_expert.anchor_source import check_words, configured_anchors, configured_picture_prompts
    from ..tools.backbones import load_backbone

    try:
        backbone = load_backbone(loaded.settings.backbone, loaded)
        check_words(backbone, loaded)
        prompted = configured_picture_prompts(backbone, loaded)
        if prompted is not None:
            return Finding(what, "ok", f"{prompted.kind}, of each picture anew, sha256 {prompted.sha256[:12]}…")
        anchors = configured_anchors(backbone, loaded)
    except FlawscopeError as error:
        return Finding(what, "broken", str(error), error.exit_code)
    assert anchors is not None  # noqa: S101  # check_words: the backbone has a text tower
    return Finding(what, "ok", f"the same for every picture, sha256 {anchors.prompts_sha256[:12]}…")


def _home(loaded: LoadedSettings) -> str:
    root = loaded.home.root
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root) as file:
            file.write(b"x")
    import shutil

    free = shutil.disk_usage(root).free
    if free < 200_000_000:
        raise StorageError(
            f"{root} has {free / 1e6:.0f} MB left.", hint="Free some space, or set FLAWSCOPE_HOME elsewhere."
        )
    return f"{root} (writable, {free / 1e9:.1f} GB free)"


def _backbone(loaded: LoadedSettings) -> str:
    import numpy as np

    from ..tools.backbones import load_backbone

    backbone = load_backbone(loaded.settings.backbone, loaded)
    features = backbone.encode_image(np.full((1, 64, 64, 3), 128, np.uint8))
    return f"{backbone.name}, sha256 {backbone.weights_sha256[:12]}…, gives {len(features.patch_tokens)} layers"


def _reasoner(loaded: LoadedSettings) -> str:
    """Who composes the report, and whether what it runs on is there; several GB are not read for a look."""
    name = loaded.settings.reasoner
    if name != "qwen_vl":
        from .reasoner import load_reasoner

        return load_reasoner(loaded).name
    from .vision_language.checkpoint import check_folder
    from .vision_language.loading import checkpoint_folder

    folder = checkpoint_folder(loaded)
    config = check_folder(folder)
    absent = [package for package in ("torch", "transformers", "xgrammar") if importlib.util.find_spec(package) is None]
    if absent:
        raise MissingExtraError("the reasoner qwen_vl", "vlm")
    note = ", a laboratory animal" if (config.get("flawscope") or {}).get("laboratory") else ""
    return f"{name}: checkpoint in {folder}{note}, {loaded.settings.vlm_device} device (not loaded for this look)"


def _products(loaded: LoadedSettings) -> str:
    from ..tools.ad_expert.head_file import configured_head
    from ..tools.backbones import load_backbone
    from ..tools.product_files import list_products, load_product

    names = list_products(loaded.home.products)
    if names or loaded.settings.trained_head is not None:  # which the first product would be enrolled with
        backbone = load_backbone(loaded.settings.backbone, loaded)
        head = configured_head(backbone, loaded)
        for name in names:
            load_product(loaded.home.products, name, backbone, head)
    return (
        f"{len(names)} enrolled, all files verified"
        if names
        else "none enrolled yet (flawscope enroll PRODUCT good/*.jpg)"
    )


def _knowledge(loaded: LoadedSettings) -> str:
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import open_knowledge_base
    from ..tools.knowledge.milvus_server import MilvusServer
    from ..tools.knowledge.retriever import configured_retriever

    backbone = load_backbone(loaded.settings.backbone, loaded)
    server = MilvusServer.configured(loaded.settings)
    if server is not None:  # an inspection may go on without it; who asks the doctor wants to know
        server = replace(server, required=True)
    base = open_knowledge_base(
        loaded.home.knowledge,
        backbone,
        store=loaded.settings.store,
        server=server,
        projection=configured_retriever(loaded.settings, backbone),
    )
    try:
        return f"{len(base.documents)} documents, store {server.uri if server else loaded.settings.store}"
    finally:
        base.close()
