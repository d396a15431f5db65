"""The canonical defect types: names of the data sets, of users and of the knowledge documents."""

from __future__ import annotations

import pytest

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.knowledge import vocabulary as module
from flawscope.tools.knowledge.drawings import DRAWN_TYPES
from flawscope.tools.knowledge.schema import GOOD, general_types, load_documents
from flawscope.tools.knowledge.vocabulary import DefectType, canonical, fold, specific_types, vocabulary

MVTEC_AD = {
    "bottle": "broken_large broken_small contamination",
    "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable missing_wire "
    "poke_insulation",
    "capsule": "crack faulty_imprint poke scratch squeeze",
    "carpet": "color cut hole metal_contamination thread",
    "grid": "bent broken glue metal_contamination thread",
    "hazelnut": "crack cut hole print",
    "leather": "color cut fold glue poke",
    "metal_nut": "bent color flip scratch",
    "pill": "color combined contamination crack faulty_imprint pill_type scratch",
    "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
    "tile": "crack glue_strip gray_stroke oil rough",
    "toothbrush": "defective",
    "transistor": "bent_lead cut_lead damaged_case misplaced",
    "wood": "color combined hole liquid scratch",
    "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
}
VISA = {
    "candle": "chunk of wax missing,foreign particals on candle,different colour spot,damaged corner of packaging,"
    "weird candle wick,other,extra wax in candle,wax melded out of the candle",
    "capsules": "bubble,discolor,scratch,leak,misshape",
    "cashew": "burnt,corner or edge breakage,different colour spot,middle breakage,small holes,same colour spot,"
    "small scratches,stuck together",
    "chewinggum": "chunk of gum missing,scratches,small cracks,corner missing,similar colour spot",
    "fryum": "burnt,similar colour spot,corner or edge breakage,middle breakage,small scratches,different colour spot,"
    "fryum stuck together,other",
    "macaroni1": "chip around edge and corner,small scratches,small cracks,different colour spot,middle breakage,"
    "similar colour spot",
    "macaroni2": "breakage down the middle,small scratches,color spot similar to the object,different color spot,"
    "small chip around edge,small cracks,other",
    "pcb1": "bent,melt,scratch,missing",
    "pcb4": "burnt,scratch,dirt,damage,extra,missing,wrong place",
    "pipe_fryum": "burnt,corner and edge breakage,different colour spot,middle breakage,small scratches,small cracks,"
    "similar colour spot,stuck together",
}
LOCO = {
    "breakfast_box": "compartments_swapped missing_almonds missing_bananas missing_cereals "
    "missing_cereals_and_toppings missing_toppings nectarine_1_tangerine_1 nectarines_0_tangerines_4 "
    "nectarines_2_tangerine_1 overflow underflow wrong_ratio box_damaged contamination fruit_damaged mixed_cereals "
    "toppings_crushed",
    "juice_bottle": "empty_bottle misplaced_fruit_icon misplaced_label_bottom misplaced_label_top missing_bottom_label "
    "missing_fruit_icon missing_top_label swapped_labels wrong_fill_level_not_enough wrong_fill_level_too_much "
    "wrong_juice_type contamination damaged_label incomplete_fruit_icon juice_color label_text_incomplete "
    "rotated_label unknown_fruit_icon",
    "pushpins": "additional_1_pushpin additional_2_pushpins missing_pushpin missing_separator broken color "
    "contamination front_bent",
    "screw_bag": "additional_1_long_screw additional_1_nut_ additional_1_short_screw additional_1_washer_ "
    "additional_2_nuts_ additional_2_washers_ missing_1_long_screw missing_1_nut missing_1_short_screw "
    "missing_1_washer missing_2_nuts missing_2_washers screw_too_long screw_too_short screws_1_very_short "
    "screws_2_very_short 1_very_short_screw bag_broken color contamination part_broken",
    "splicing_connectors": "cable_color cable_cut cable_too_short_t2 cable_too_short_t3 cable_too_short_t5 extra_cable "
    "missing_cable missing_connector missing_connector_and_cable wrong_cable_location wrong_connector_type_3_2 "
    "wrong_connector_type_5_2 wrong_connector_type_5_3 broken_cable broken_connector cable_not_plugged color "
    "contamination flipped_connector open_lever unknown_cable_color",
}
OTHERS = {
    "mpdd": "hole scratches bend_and_parts_mismatch parts_mismatch defective_painting major_rust total_rust flattening",
    "goodsad": "deformation opened surface_damage cap_half_open cap_open straw_missing broken surface_anomaly",
    "btad": "ko",
    "dagm": "Class1 Class10",
    "neu-det": "crazing inclusion patches pitted_surface rolled-in_scale scratches",
    "deeppcb": "open short mousebite spur copper pin-hole spurious_copper",
    "magnetic_tile": "blowhole break crack fray uneven MT_Blowhole MT_Break MT_Crack MT_Fray MT_Uneven",
    "mmad": "bad defective logical_anomalies structural_anomalies",
    "real-iad": "pit deformation abrasion scratch damage missing_parts foreign_objects contamination",
    "medical": "tumor hemorrhage polyp melanoma yes abnormal",
}


def labels() -> list[tuple[str, str]]:
    found = [(p, label) for sets in (MVTEC_AD, LOCO, OTHERS) for p, text in sets.items() for label in text.split()]
    return found + [(p, label) for p, text in VISA.items() for label in text.split(",")]


def test_every_defect_of_the_known_data_sets_has_a_canonical_name() -> None:
    unknown = [pair for pair in labels() if canonical(pair[1], pair[0]) is None or canonical(pair[1]) is None]
    assert unknown == []


def test_what_labels_mean() -> None:
    expected = {
        "Small_Scratches": "scratch",
        "MT_Blowhole": "porosity",
        "missing_2_nuts": "missing_part",
        "additional_1_nut_": "extra_part",
        "rolled-in_scale": "rolled_in_scale",
        "different color spot": "colour_spot",
        "toothbrush-shaped": None,
        "good": None,
        "": None,
        "01": None,
    }
    assert {name: canonical(name) for name in expected} == expected


def test_several_labels_between_commas() -> None:
    assert canonical("small scratches, scratch,") == "scratch"
    assert canonical("bubble,discolor,scratch") == "combined"
    assert canonical("bubble,unheard of") is None
    assert canonical(",") is None


def test_a_word_that_means_something_else_on_a_product() -> None:
    assert (canonical("break"), canonical("break", "magnetic_tile")) == ("broken", "chip")
    assert (canonical("yes"), canonical("yes", "Br35H")) == ("unspecified", "tumour")
    assert canonical("crack", "magnetic_tile") == "crack"


def test_at_least_seventy_specific_types_with_a_phrase_of_their_own() -> None:
    specific = [entry for entry in vocabulary().types.values() if entry.is_specific]
    assert len(specific) >= 70
    assert len({entry.phrase for entry in specific}) == len(specific)
    assert {"rupture", "surface", "assembly", "electronics", "textile", "medical"} <= {e.group for e in specific}
    assert all(entry.name == entry.name.lower() and " " not in entry.name for entry in specific)
    assert all(0 < len(entry.phrase.split()) <= 5 for entry in specific)


def test_every_name_means_its_own_type() -> None:
    for entry in vocabulary().types.values():
        assert {canonical(name) for name in (entry.name, entry.phrase, *entry.synonyms)} == {entry.name}
        spelt = [fold(name) for name in (entry.name, *entry.synonyms)]
        assert "" not in spelt
        assert len(spelt) == len(set(spelt)), f"{entry.name} lists a name twice"


def test_two_types_may_not_share_a_name() -> None:
    types = [DefectType("dent", "form", "dent", ("dings",)), DefectType("bump", "form", "bump", ("Ding",))]
    with pytest.raises(KnowledgeError, match="both dent and bump"):
        module._meanings(types)


def test_the_names_of_the_knowledge_documents_are_canonical() -> None:
    documents = load_documents()
    assert set(general_types(documents)) <= set(vocabulary().types)
    assert set(DRAWN_TYPES) <= set(vocabulary().types)
    other = {
        alias: (page.defect_type, canonical(alias))
        for page in documents
        if page.scope == "general"
        for alias in (page.defect_type, *page.aliases)
        if canonical(alias) != page.defect_type
    }
    assert other == {}


def test_the_labels_of_the_products_in_the_knowledge_documents() -> None:
    pages = [page for page in load_documents() if page.scope == "product" and page.defect_type != GOOD]
    coarse = {"unspecified", "logical_anomaly", "structural_anomaly"}  # such a label's pages name what is seen
    named = [page for page in pages if canonical(page.defect_type, page.product) not in coarse]
    unnamed = {page.product for page in pages} - {page.product for page in named}
    assert unnamed == {"solar_cell_mono", "toothbrush", *LOCO}  # "defective", "logical" or "structural"
    assert [(p.doc_id, canonical(p.defect_type, p.product), p.general_type) for p in named] == [
        (p.doc_id, p.general_type, p.general_type) for p in named
    ]


def test_specific_types_are_named_once_in_order() -> None:
    assert specific_types(["scratches", "good", "defective", "cut", "scratch_head"]) == ("scratch", "cut")
    assert specific_types(["local"], "textile") == ("weave_fault",)


@pytest.mark.parametrize("name", ["Missing Parts", "missing-part", "MISSING_PART", "missing  part ", "missing_part_2"])
def test_spelling_does_not_matter(name: str) -> None:
    assert canonical(name) == "missing_part"


def test_british_and_american_spelling_are_one() -> None:
    for american, british in (
        ("discolored", "discoloured"),
        ("gray stroke", "grey stroke"),
        ("brain tumor", "tumours"),
    ):
        assert canonical(american) == canonical(british) is not None
