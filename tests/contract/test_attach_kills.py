"""A run that attaches pictures can be killed anywhere: what is there is whole, and the next run goes on."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

from attach_run import run_attach, write_cuts

from flawscope.tools.knowledge.attachments import attachments, check

KILLS, AT_MOST = 10, 3


def test_ten_kills_leave_no_half_picture(tmp_path: Path) -> None:
    data = write_cuts(tmp_path / "data", 96)
    run_attach(data, tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["attach_run"])

    def start(until: int) -> tuple[Any, Any]:
        steps = context.Value("i", -1)
        process = context.Process(target=run_attach, args=(data, tmp_path / "killed", steps, until))
        process.start()
        return process, steps

    chance, seen = random.Random(0), []
    for _ in range(KILLS):
        before = len(attachments(tmp_path / "killed"))
        process, steps = start(before + AT_MOST)  # however late it is killed, some is left for the others
        while process.exitcode is None and steps.value <= before:  # each goes on by a picture at least
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.02))  # anywhere in a picture, or while its folder is put in place
        process.kill()
        process.join()
        for attachment in attachments(tmp_path / "killed"):
            check(attachment)
        seen.append(len(attachments(tmp_path / "killed")))
    assert seen == sorted(seen)
    assert seen[-1] > 0
    assert len(set(seen)) > 3  # the kills fell into the work, and it went on between them
    run_attach(data, tmp_path / "killed")
    whole, killed = (
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "killed")
    )
    assert killed == whole  # no leftovers either
