"""The page on structured output: its examples run, and print what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[3] / "docs" / "structured-output.md"


def test_the_examples_run() -> None:
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert all(o.text.endswith("= 24 left 24\n") for o in names["output"].outputs)
    who, brackets, answer, free = (result.outputs[0] for result in names["results"])
    assert json.loads(who.text).keys() == {"name", "age"}
    assert brackets.text.strip("()") == "x" and answer.text in ("yes", "no", "unknown")
    assert len(free.token_ids) == 48 or free.finish_reason == "stop"
    assert len(names["beams"][0].outputs) == 4
    assert all(json.loads(beam.text) for beam in names["beams"][0].outputs)
    assert re.fullmatch("([a-z]{3};){4}", names["found"].best.text)
    assert len({node.completion[:3] for node in names["ended"]}) == 1
    assert all(re.fullmatch("([a-z]{3};){4}", node.completion) for node in names["ended"])
