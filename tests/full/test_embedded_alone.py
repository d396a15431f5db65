"""Where everything is installed, those who use no model pay for none: an inspection without one loads none of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from conftest import Plant

MODELS = {"torch", "torchvision", "transformers", "tokenizers", "safetensors", "peft", "xgrammar", "open_clip", "timm"}
PROBE = """
import contextlib, io, json, sys
from flawscope.cli import main
good, part = json.loads(sys.argv[1])
for command in (["enroll", "plate", *good], ["inspect", part, "--product", "plate", "--ask", "where is it?"]):
    sys.argv = ["flawscope", *command]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"code": code, "said": said.getvalue(), "modules": modules}))
"""


def test_an_embedded_inspection_and_a_question_load_no_model_library(plant: Plant) -> None:
    """All of it is installed here, so that a library which imports another where it can would be seen."""
    given = json.dumps([[str(path) for path in plant.good[:6]], str(plant.square)])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, given], env=os.environ, capture_output=True, text=True, timeout=300, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] in (1, 3), done.stderr
    assert "plate" in found["said"]
    assert "onnxruntime" in found["modules"]
    assert not MODELS & set(found["modules"])
