"""The shipped pages: complete, specific, and true to their own counts in the docs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from flawscope.agent import sentences as say
from flawscope.tools.knowledge.drawings import DRAWN_TYPES
from flawscope.tools.knowledge.schema import (
    KnowledgeDocument,
    estimated_tokens,
    general_types,
    load_documents,
    quoted_text,
)

DOCUMENTS = load_documents()
GENERAL = [document for document in DOCUMENTS if document.scope == "general"]
PRODUCT = [document for document in DOCUMENTS if document.scope == "product"]
GUIDE = Path(__file__).parents[2] / "docs" / "knowledge.md"

# the labels that the pictures of each product carry, as spelled by their sources
LABELS = {
    "transistor": {"good", "bent_lead", "cut_lead", "damaged_case", "misplaced"},
    "leather": {"good", "color", "cut", "fold", "glue", "poke"},
    "bottle": {"good", "broken_large", "broken_small", "contamination"},
    "cable": {
        "good",
        "bent_wire",
        "cable_swap",
        "combined",
        "cut_inner_insulation",
        "cut_outer_insulation",
        "missing_cable",
        "missing_wire",
        "poke_insulation",
    },
    "capsule": {"good", "crack", "faulty_imprint", "poke", "scratch", "squeeze"},
    "carpet": {"good", "color", "cut", "hole", "metal_contamination", "thread"},
    "grid": {"good", "bent", "broken", "glue", "metal_contamination", "thread"},
    "hazelnut": {"good", "crack", "cut", "hole", "print"},
    "metal_nut": {"good", "bent", "color", "flip", "scratch"},
    "pill": {"good", "color", "combined", "contamination", "crack", "faulty_imprint", "pill_type", "scratch"},
    "screw": {"good", "manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top"},
    "tile": {"good", "crack", "glue_strip", "gray_stroke", "oil", "rough"},
    "toothbrush": {"good", "defective"},
    "wood": {"good", "color", "combined", "hole", "liquid", "scratch"},
    "zipper": {
        "good",
        "broken_teeth",
        "combined",
        "fabric_border",
        "fabric_interior",
        "rough",
        "split_teeth",
        "squeezed_teeth",
    },
    "magnetic_tile": {"good", "blowhole", "break", "crack", "fray", "uneven"},
    "solar_cell_mono": {"good", "defective"},
    "textile": {"good", "local", "global"},
    "pcb": {"good", "open", "short", "mousebite", "spur", "spurious_copper", "pin_hole"},
    "steel_types": {"crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"},
    "road_cracks": {"crack"},
    "candle": {
        "good",
        "chunk_of_wax_missing",
        "damaged_corner_of_packaging",
        "different_colour_spot",
        "extra_wax_in_candle",
        "foreign_particals_on_candle",
        "wax_melded_out_of_the_candle",
        "weird_candle_wick",
        "other",
    },
    "capsules": {"good", "bubble", "discolor", "scratch", "leak", "misshape"},
    "cashew": {
        "good",
        "burnt",
        "corner_or_edge_breakage",
        "different_colour_spot",
        "same_colour_spot",
        "middle_breakage",
        "small_holes",
        "small_scratches",
        "stuck_together",
    },
    "chewinggum": {
        "good",
        "chunk_of_gum_missing",
        "scratches",
        "small_cracks",
        "corner_missing",
        "similar_colour_spot",
    },
    "fryum": {
        "good",
        "burnt",
        "similar_colour_spot",
        "corner_or_edge_breakage",
        "middle_breakage",
        "small_scratches",
        "different_colour_spot",
        "fryum_stuck_together",
        "other",
    },
    "macaroni1": {
        "good",
        "chip_around_edge_and_corner",
        "small_scratches",
        "small_cracks",
        "different_colour_spot",
        "similar_colour_spot",
        "middle_breakage",
    },
    "macaroni2": {
        "good",
        "breakage_down_the_middle",
        "small_scratches",
        "colour_spot_similar_to_the_object",
        "different_colour_spot",
        "small_chip_around_edge",
        "small_cracks",
        "other",
    },
    "pcb1": {"good", "bent", "melt", "scratch", "missing"},
    "pcb2": {"good", "bent", "melt", "scratch", "missing"},
    "pcb3": {"good", "bent", "melt", "scratch", "missing"},
    "pcb4": {"good", "burnt", "scratch", "dirt", "damage", "extra", "missing", "wrong_place"},
    "pipe_fryum": {
        "good",
        "burnt",
        "corner_and_edge_breakage",
        "different_colour_spot",
        "middle_breakage",
        "small_scratches",
        "small_cracks",
        "similar_colour_spot",
        "stuck_together",
    },
    "breakfast_box": {"good", "logical_anomalies", "structural_anomalies"},
    "juice_bottle": {"good", "logical_anomalies", "structural_anomalies"},
    "pushpins": {"good", "logical_anomalies", "structural_anomalies"},
    "screw_bag": {"good", "logical_anomalies", "structural_anomalies"},
    "splicing_connectors": {"good", "logical_anomalies", "structural_anomalies"},
}


def prose(document: KnowledgeDocument) -> list[str]:
    """Every written field of a page, without its names and provenance."""
    look_alikes = [look_alike.how_to_tell for look_alike in document.look_alikes]
    single = [document.normal_traits, document.appearance, document.description, document.confirm, document.action]
    return [*single, document.scenario, *document.likely_causes, *document.consequences, *look_alikes]


def words(document: KnowledgeDocument) -> list[str]:
    return re.findall(r"[a-z]+", " ".join(prose(document)).lower())


def test_every_required_general_type_is_described() -> None:
    required = """scratch crack hole dent contamination stain missing_part misplacement bent cut broken fold burr chip
        corrosion discolouration porosity inclusion pitting rolled_in_scale crazing patches wrinkle delamination bubble
        burn wear poke glue_residue print_error deformation uneven_surface short_circuit open_circuit mouse_bite spur
        spurious_copper pinhole thread_pull weave_fault colour_spot foreign_object swelling cold_solder""".split()
    assert set(required) <= set(general_types(DOCUMENTS))
    assert len(GENERAL) == len(general_types(DOCUMENTS)), "one page a general type"


def test_products_have_a_page_for_every_label() -> None:
    labels: dict[str, set[str]] = {}
    for document in PRODUCT:
        labels.setdefault(document.product, set()).add(document.defect_type)
    assert labels == LABELS


@pytest.mark.parametrize("document", GENERAL, ids=lambda document: document.doc_id)
def test_a_general_page_is_complete(document: KnowledgeDocument) -> None:
    assert document.doc_id == f"general.{document.defect_type}"
    assert all(prose(document))
    assert 3 <= len(document.likely_causes) <= 5
    assert 2 <= len(document.consequences) <= 4
    assert len({look_alike.defect_type for look_alike in document.look_alikes}) >= 2
    assert document.aliases
    assert document.shape is not None
    assert document.contrast is not None
    assert len(words(document)) >= 120
    assert document.drawing in DRAWN_TYPES


@pytest.mark.parametrize("document", PRODUCT, ids=lambda document: document.doc_id)
def test_a_product_page_is_complete(document: KnowledgeDocument) -> None:
    assert document.doc_id.startswith(f"{document.product}.")
    assert len(words(document)) >= 60
    assert document.page_image is None
    assert document.appearance
    assert document.description
    assert document.confirm
    assert document.action
    if document.defect_type == "good":
        assert document.normal_traits
        assert not document.likely_causes
        assert not document.look_alikes
    else:
        assert document.shape is not None
        assert document.contrast is not None
        assert len(document.likely_causes) >= 3
        assert len(document.consequences) >= 2
        assert len(document.look_alikes) >= 2


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.doc_id)
def test_a_page_names_its_origin_and_survives_quotation(document: KnowledgeDocument) -> None:
    assert document.source
    assert document.licence == "Apache-2.0"
    assert document.generated_by == "flawscope"
    assert document.description.count(".") == 1, "one sentence to quote"
    assert document.description.endswith(".")
    quotation = quoted_text(document)
    assert estimated_tokens(quotation) <= 350
    assert document.description in quotation, "cleaning must not damage honest text"


def test_aliases_of_general_pages_lead_to_one_page_each() -> None:
    counts = Counter(alias.lower() for document in GENERAL for alias in {*document.aliases, document.title})
    names = {document.defect_type.replace("_", " ") for document in GENERAL}
    assert not [alias for alias, count in counts.items() if count > 1]
    clashes = [
        (document.doc_id, alias)
        for document in GENERAL
        for alias in document.aliases
        if alias.lower() in names - {document.defect_type.replace("_", " ")}
    ]
    assert not clashes


def test_no_page_of_a_defect_says_words_that_would_call_a_part_good() -> None:
    quotable = [
        (document.doc_id, line)
        for document in DOCUMENTS
        if document.defect_type != "good"
        for line in (document.description, *document.likely_causes, *document.consequences, document.action)
    ]
    assert len(quotable) > 1000
    assert not [(doc_id, line) for doc_id, line in quotable if say.denial(line) or say.calls_good(line)]


def test_the_guide_states_the_true_counts() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert f"**{len(GENERAL)} general types**" in guide
    assert f"**{len(PRODUCT)} product pages**" in guide
    for product in LABELS:
        count = sum(document.product == product for document in PRODUCT)
        assert re.search(rf"^\| {product} \| {count} \|", guide, re.MULTILINE), product
    for field in KnowledgeDocument.model_fields:
        assert f"| `{field}` |" in guide, field
    for defect_type in general_types(DOCUMENTS):
        assert f"`{defect_type}`" in guide, defect_type
