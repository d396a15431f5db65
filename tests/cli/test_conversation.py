"""Staying in conversation on a terminal, leaving it, and taking it up again in another process."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from typing import Any


class Terminal:
    """A process on a pseudo-terminal."""

    def __init__(self, cli: Any, *arguments: object) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            cli.command(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=cli.environment(TERM="dumb"),
            cwd=cli.folder,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.seen = ""
        self._read_to = 0

    def wait_for(self, text: str, timeout_s: float = 90) -> str:
        """Everything printed since the last call, up to and with ``text``."""
        deadline = time.monotonic() + timeout_s
        while (found := self.seen.find(text, self._read_to)) < 0:
            if select.select([self._master], [], [], 0.2)[0] and not self._read():
                break
            if time.monotonic() > deadline:
                break
        if found < 0:
            self._process.kill()
            self._process.wait()
        assert found >= 0, self.seen
        start, self._read_to = self._read_to, found + len(text)
        return self.seen[start : self._read_to]

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux reports the other side's end this way
            return False
        self.seen += data.decode(errors="replace").replace("\r", "")
        return bool(data)

    def send(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Its exit code; reads what is left."""
        while self._read():
            pass
        code = self._process.wait(timeout=60)
        os.close(self._master)
        return code


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _thread(text: str) -> str:
    found = re.search(r"flawscope chat ([0-9a-f]{8})", text)
    assert found, text
    return found[1]


def test_a_dialogue_is_kept_and_taken_up_by_another_process(cli: Any) -> None:
    terminal = Terminal(cli, "inspect", cli.plant.square, "-p", "plate")
    thread = _thread(terminal.wait_for("\n? "))
    terminal.send("where exactly?\n")
    terminal.wait_for("peak ")  # the words before it may be broken across lines
    terminal.send("zoom into region 1\n")
    terminal.wait_for("picture: ")
    terminal.send("quit\n")
    assert terminal.end() == 1
    assert list((cli.home / "artifacts" / "looks").glob("*-zoom.png"))
    later = cli.process("chat", thread, "--ask", "history")
    assert later.code == 0
    assert "where exactly? — R1:" in later.out.replace("\n", " ")
    terminal = Terminal(cli, "chat", thread)
    assert "NG" in terminal.wait_for("Conversation")
    terminal.send("show the evidence\n")
    terminal.wait_for("M1 (measurement)")
    terminal.send("\x04")
    assert terminal.end() == 0
    assert "show the evidence" in cli("chat", thread, "--ask", "what did I ask").out


def test_the_end_of_input_ends_with_the_verdict(cli: Any) -> None:
    terminal = Terminal(cli, "inspect", cli.plant.new_good, "-p", "plate")
    terminal.wait_for("Conversation")
    terminal.send("\x04")
    assert terminal.end() == 0


def test_ctrl_c_ends_the_conversation_and_keeps_it(cli: Any) -> None:
    terminal = Terminal(cli, "inspect", cli.plant.square, "-p", "plate")
    thread = _thread(terminal.wait_for("\n? "))
    terminal.send("what is it?\n")
    terminal.wait_for("\n? ")
    terminal.send("\x03")
    assert terminal.end() == 130
    assert "flawscope: interrupted; everything finished so far is kept." in terminal.seen
    assert "Traceback" not in terminal.seen
    assert "what is it?" in cli("chat", thread, "--ask", "history").out


def test_several_pictures_no_chat_and_failures_do_not_stay(cli: Any) -> None:
    (cli.folder / "broken.png").write_bytes(b"no picture")
    for arguments, code in (
        ([cli.plant.square, "--no-chat"], 1),
        ([cli.plant.square, cli.plant.new_good], 1),
        (["broken.png"], 4),
    ):
        terminal = Terminal(cli, "inspect", *arguments, "-p", "plate")
        assert terminal.end() == code
        assert "Conversation" not in terminal.seen
