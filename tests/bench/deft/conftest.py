"""A folder of small recordings, named as DeFT names its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramify.bench.attention import ceilings


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The full-size copy takes longer than the tests."""
    monkeypatch.setitem(ceilings.COPY_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(ceilings.GEMM_SIZE, "cpu", 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two searches (the second is cut off after one) and a draft of four tokens."""

    def tree(prompt: int) -> dict[str, object]:
        nodes = [
            {"id": 0, "value": prompt, "start": 1 - prompt, "end": 0, "children": [1, 2]},
            {"id": 1, "value": 2, "start": 1, "end": 2, "children": [3]},
            {"id": 2, "value": 4, "start": 1, "end": 4, "children": []},
            {"id": 3, "value": 3, "start": 3, "end": 5, "children": []},
        ]
        return {"incompleted": False, "prompt": "", "data": {str(n["id"]): n for n in nodes}}

    (tmp_path / "smallToT.json").write_text(json.dumps([tree(6), tree(130)]))
    drafts = {
        "Tree_ID": 1,
        "Tree_Structure": [[0], [0, 0], [1]],
        "Records": [{"prompt": "", "Accept_length": [2, 1, 3]}],
    }
    (tmp_path / "APPS_tree_size4.json").write_text(json.dumps(drafts))
    return tmp_path
