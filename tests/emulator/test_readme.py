"""The messages that the README shows are those that the checker gives."""

import re

from tests.emulator import Module
from tests.emulator.build import HERE
from tests.emulator.test_planted_errors import FILE


def test_messages_are_real() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(race.*?)```", text, re.DOTALL)
    messages = [" ".join(part.split()) for part in block.split("\n\n")]
    module = Module(FILE.path)
    assert messages == [FILE.report(module, message.split(":")[0]) for message in messages]
