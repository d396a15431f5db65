"""Records what other people's code makes of the tiny CLIP; ``tests/data/README.md`` says what and from which versions.

python tests/full/record_originals.py anomalyclip FOLDER_OF_THEIR_REPOSITORY
python tests/full/record_originals.py winclip

The first needs the packages of the extra ``clip`` and scikit-learn, the second anomalib beside them. Their code runs
unchanged. What it imports but does not need here, and the weights that it would download, are replaced.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from full.tiny_clip import MODEL_CFG, tiny_model

from flawscope.tools.ad_expert.prompt_ensemble import load_ensemble

DATA = Path(__file__).parents[1] / "data"
LAYERS = 24
SIZES_PX = (48, 72)
"""The size that the positions were made for, and one that they are interpolated to."""
NOUN = "metal nut"
CLASS = "colon"
"""A data set of theirs that has a single class, named like itself."""
DEEP = {"Prompt_length": 12, "learnabel_text_embedding_depth": 9, "learnabel_text_embedding_length": 4}
"""Their parameters, spelt as they spell them."""
Arrays = dict[str, NDArray[Any]]


def pictures() -> Arrays:
    """Two pictures of each size, uint8 (2, S, S, 3): coloured cells under noise."""
    rng = np.random.default_rng(0)
    made = {}
    for size in SIZES_PX:
        cells = rng.integers(0, 200, (2, size // 12, size // 12, 3)).repeat(12, axis=1).repeat(12, axis=2)
        made[f"pictures_{size}"] = (cells + rng.integers(0, 56, cells.shape)).astype(np.uint8)
    return made


def probe() -> Arrays:
    """A few weights, by which a reader sees that it has the same tiny CLIP."""
    return {"probe": tiny_model(layers=LAYERS).visual.proj[:4].detach().numpy()}


def stand_in(name: str, **content: Any) -> None:
    """A module of that name in place of one that is not installed or not wanted."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # others ask whether it is there
    vars(module).update(content)
    sys.modules[name] = module


def tiny_in(towers: Any, kind: str, **more: Any) -> Any:
    """The tiny CLIP in the modules of one of their files."""
    vision, text = MODEL_CFG["vision_cfg"], MODEL_CFG["text_cfg"]
    size, patch, width, dim = vision["image_size"], vision["patch_size"], vision["width"], MODEL_CFG["embed_dim"]
    words = (text["context_length"], text["vocab_size"], text["width"], text["heads"], text["layers"])
    model = getattr(towers, kind)(dim, size, LAYERS, width, patch, *words, **more)
    # they make heads of 64 channels, the tiny one has narrower ones
    model.visual = towers.VisionTransformer(size, patch, width, LAYERS, width // vision["head_width"], dim)
    model.load_state_dict(tiny_model(layers=LAYERS).state_dict())
    return model.eval()


def overheard(method: Callable[..., Any], heard: list[Any]) -> Callable[..., Any]:
    """The same method; what it returns is copied into ``heard``, since they change some of it in place."""

    def call(*given: Any, **named: Any) -> Any:
        heard.append(method(*given, **named))
        return copy.deepcopy(heard[-1])

    return call


def record_anomalyclip(repository: Path) -> Arrays:
    """Run their ``test.test`` at both sizes, and their prompt ensemble."""
    import packaging.version

    results: list[dict[str, Any]] = []
    stand_in("pkg_resources", packaging=packaging)
    stand_in("thop", profile=None)
    stand_in("tabulate", tabulate=lambda *_, **__: "")
    stand_in("visualization", visualizer=None)
    stand_in("metrics", pixel_level_metrics=None, image_level_metrics=lambda all_, *_: results.append(all_[CLASS]) or 0)
    sys.path.insert(0, str(repository))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        out = {name: pair[:1] for name, pair in pictures().items()}
        out |= write_prompts(Path(folder) / "checkpoint.pth")
        for size in SIZES_PX:
            out |= evaluated(size, out[f"pictures_{size}"][0], Path(folder), results)
        return out | averaged_sentences()


def write_prompts(path: Path) -> Arrays:
    """A checkpoint of theirs with random prompts."""
    import prompt_ensemble
    from AnomalyCLIP_lib import AnomalyCLIP as anomaly_clip  # noqa: N813

    torch.manual_seed(1)
    learner = prompt_ensemble.AnomalyCLIP_PromptLearner(tiny_in(anomaly_clip, "AnomalyCLIP", design_details=DEEP), DEEP)
    out = {}
    for name, value in learner.named_parameters():
        if name.startswith(("ctx", "compound_prompts_text")):
            # larger than they start, so that they count; in halves, to which theirs rounds some of them
            value.data = (10 * value.data).half().float()
            out[name.replace("compound_prompts_text.", "deep_")] = value.numpy()
    torch.save({"prompt_learner": learner.state_dict()}, path)
    return out


def evaluated(size: int, picture: NDArray[np.uint8], folder: Path, results: list[dict[str, Any]]) -> Arrays:
    """What their whole evaluation of a data set of one picture makes of it."""
    import AnomalyCLIP_lib
    import test as theirs
    from AnomalyCLIP_lib import AnomalyCLIP as anomaly_clip  # noqa: N813

    images: list[Any] = []
    texts: list[Any] = []

    def load(_: str, *, device: str, design_details: dict[str, int]) -> tuple[Any, None]:
        model = tiny_in(anomaly_clip, "AnomalyCLIP", design_details=design_details).to(device)
        model.encode_image = overheard(model.encode_image, images)
        model.encode_text_learn = overheard(model.encode_text_learn, texts)
        return model, None

    AnomalyCLIP_lib.load = load
    Image.fromarray(picture).save(folder / "picture.png")
    Image.new("L", (size, size), 255).save(folder / "mask.png")
    entry = {"img_path": "picture.png", "mask_path": "mask.png", "cls_name": CLASS, "specie_name": "x", "anomaly": 1}
    (folder / "meta.json").write_text(json.dumps({"test": {CLASS: [entry]}}))
    options = {"data_path": str(folder), "save_path": str(folder), "checkpoint_path": str(folder / "checkpoint.pth")}
    options |= {"dataset": CLASS, "image_size": size, "sigma": 4 * size / 518, "metrics": "image-level"}
    options |= {"features_list": [6, 12, 18, 24], "feature_map_layer": [0, 1, 2, 3]}
    theirs.test(argparse.Namespace(**options, n_ctx=12, t_n_ctx=4, depth=9))
    whole, patches = images[0]
    return {
        f"tokens_{size}": torch.cat(patches).numpy(),  # the class token in front
        f"global_{size}": whole.numpy(),
        f"maps_{size}": np.asarray(results[-1]["anomaly_maps"], np.float32),
        f"scores_{size}": np.asarray(results[-1]["pr_sp"], np.float32),
        "text": texts[0].numpy(),
    }


def averaged_sentences() -> Arrays:
    """Their prompt ensemble, and the embeddings of its sentences that went into it."""
    import prompt_ensemble
    from AnomalyCLIP_lib import CLIP as plain_clip  # noqa: N811

    sentences: list[Any] = []
    model = tiny_in(plain_clip, "CLIP")
    model.encode_text = overheard(model.encode_text, sentences)
    ensemble = prompt_ensemble.encode_text_with_prompt_ensemble(model, [NOUN], "cpu").numpy()
    normal, abnormal = (part.numpy() for part in sentences)
    return {"ensemble": ensemble, "normal_sentences": normal, "abnormal_sentences": abnormal}


def record_winclip() -> Arrays:
    """Run anomalib's model on our sentences: by words alone, then with the second picture as its reference."""
    from anomalib.models.image.winclip import torch_model, utils

    ensemble = load_ensemble()
    model = tiny_model(layers=LAYERS)
    torch_model.open_clip.create_model_and_transforms = lambda *_, **__: (model, None, None)
    torch_model.create_prompt_ensemble = lambda noun: (
        ensemble.sentences(ensemble.normal, noun),
        ensemble.sentences(ensemble.abnormal, noun),
    )
    size = SIZES_PX[0]
    out = {f"pictures_{size}": pictures()[f"pictures_{size}"]}
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((torch.tensor(out[f"pictures_{size}"]) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    winclip = torch_model.WinClipModel(NOUN)
    with torch.no_grad():
        out["text"] = winclip.text_embeddings.numpy()
        out["scores"] = winclip(pixels).pred_score.numpy()
        whole, _, patches = winclip.encode_image(pixels)
        out["global"], out["patches"] = whole.numpy(), patches.numpy()
        out["association"] = utils.visual_association_score(patches[:1], patches[1:])[0].numpy()
    return out


def main() -> None:
    """Write one file of recorded arrays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["anomalyclip", "winclip"])
    parser.add_argument("repository", nargs="?", type=Path)
    given = parser.parse_args()
    arrays = record_anomalyclip(given.repository.resolve()) if given.what == "anomalyclip" else record_winclip()
    path = DATA / f"{given.what}_tiny.npz"
    np.savez_compressed(path, **arrays, **probe())
    print(path, f"{path.stat().st_size:,} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
