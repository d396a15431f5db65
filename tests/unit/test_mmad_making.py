"""A set of MMAD's layout out of labelled pictures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import ConfigError
from flawscope.benchmarks.mmad.making import Plan, make_questions, read_examples
from flawscope.benchmarks.mmad.questions import load_items
from flawscope.benchmarks.mmad.scoring import DETECTION
from flawscope.tools.knowledge.schema import load_documents

TYPES = ("bent_lead", "cut_lead")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transistors, of which the shipped pages speak, with masks."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 5), ("test/good", 6), *((f"test/{kind}", 7) for kind in TYPES)):
        (root / "transistor" / folder).mkdir(parents=True)
        for number in range(count):
            picture = Image.fromarray(rng.integers(0, 255, (48, 48, 3), np.uint8))
            picture.save(root / "transistor" / folder / f"{number:03d}.png")
    for kind in TYPES:
        (root / "transistor" / "ground_truth" / kind).mkdir(parents=True)
        for number in range(7):
            mask = np.zeros((48, 48), np.uint8)
            mask[36:44, 2:10] = 255
            Image.fromarray(mask).save(root / "transistor" / "ground_truth" / kind / f"{number:03d}_mask.png")
    return root


def test_a_made_set_is_one_of_the_layout(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    count = make_questions(labelled, out, Plan(("transistor",), good=4, defective=3, examples=2), load_documents())
    items = load_items(out)
    assert count == len(items.items)
    assert len(items.images) == 4 + 2 * 3
    assert {item.subtask for item in items.items} >= {DETECTION, "Defect Classification", "Defect Localization"}
    for item in items.items:
        assert (out / item.image).is_file()
        assert all((out / path).is_file() for path in item.random_templates + item.similar_templates)
        assert len(item.random_templates) == 5
        if item.subtask == DETECTION:
            assert item.options[item.answer] == ("No." if item.normal else "Yes.")
        if item.subtask == "Defect Localization":
            assert item.options[item.answer] == "lower left."
            assert item.mask is not None
            assert (out / item.mask).is_file()


def test_examples_are_never_asked_about(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    make_questions(labelled, out, Plan(("transistor",), defective=20, examples=2), load_documents())
    aside = read_examples(out)["transistor"]
    assert {kind: len(paths) for kind, paths in aside.items()} == dict.fromkeys(TYPES, 2)

    def digest(path: str) -> str:
        return hashlib.sha256((out / path).read_bytes()).hexdigest()

    set_aside = {digest(path) for paths in aside.values() for path in paths}
    assert not set_aside & {digest(image) for image in load_items(out).images}


def test_the_same_seed_makes_the_same_set_and_another_does_not(labelled: Path, tmp_path: Path) -> None:
    made = []
    for at, seed in enumerate((0, 0, 1)):
        make_questions(labelled, tmp_path / str(at), Plan(("transistor",), seed=seed), load_documents())
        made.append(json.loads((tmp_path / str(at) / "mmad.json").read_text()))
    assert made[0] == made[1] != made[2]


def test_a_set_is_not_written_over_and_products_must_exist(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        make_questions(labelled, tmp_path, Plan(("transistor",)), load_documents())
    with pytest.raises(ConfigError, match="has no bottle"):
        make_questions(labelled, tmp_path / "new", Plan(("bottle",)), load_documents())
    assert not (tmp_path / "new").exists()
