"""The workshop enrols as the settings say, so that its products can be inspected with them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fakes import ColourWords, texture, with_square
from PIL import Image
from tiny_head import save_head

from flawscope.agent.errors import InputError
from flawscope.agent.settings import LoadedSettings, load_settings
from flawscope.benchmarks.mmad.making import Plan, make_questions
from flawscope.benchmarks.mmad.questions import ItemSet, load_items
from flawscope.benchmarks.mmad.workshop import open_workshop
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge.schema import load_documents

PRODUCT = "textile"


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory, _cheap_parts: None) -> ItemSet:
    root, out = tmp_path_factory.mktemp("labelled"), tmp_path_factory.mktemp("made") / "set"
    for folder, seeds in {"train/good": range(3), "test/good": range(20, 22), "test/local": range(30, 34)}.items():
        (root / PRODUCT / folder).mkdir(parents=True)
        for seed in seeds:
            pixels = texture(seed) if "good" in folder else with_square(texture(seed), 10, 10)
            Image.fromarray(pixels).save(root / PRODUCT / folder / f"{seed:02d}.png")
    make_questions(root, out, Plan((PRODUCT,), good=1, defective=2, examples=1), load_documents())
    return load_items(out)


def loaded(home: Path, **flags: Any) -> LoadedSettings:
    return load_settings({"home": home, "backbone": "patch-statistics", "store": "memory", **flags}, environ={})


def test_products_can_be_inspected_with_the_head_of_the_settings(items: ItemSet, tmp_path: Path) -> None:
    path = save_head(tmp_path / "head.npz")
    deps = open_workshop(loaded(tmp_path / "home", trained_head=path), items)
    model = deps.product(PRODUCT)
    assert model is not None
    assert model.head_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_words_become_scores_as_the_settings_say(
    items: ItemSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "colour-words", lambda loaded: ColourWords())
    deps = open_workshop(loaded(tmp_path, backbone="colour-words", loc_mode="paper"), items)
    model = deps.product(PRODUCT)
    assert model is not None
    assert model.text is not None
    assert model.text.config.loc_mode == "paper"


def test_pictures_above_the_limit_of_the_settings_are_refused(items: ItemSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than the limit of 9000"):
        open_workshop(loaded(tmp_path, max_pixels=9000), items)
