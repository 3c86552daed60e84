"""The one-pass peer's merge, in the Triton interpreter, against the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

CODE = """
import torch
from ramify.attention.reference import merge_partials_ref
from ramify.bench.attention.providers.ragged_merge import merge_lists, ragged_merge

torch.manual_seed(0)
rows = torch.tensor([0, 1, 2, 3, 1, 2, 2, 0])  # rows of eight partials: 2, 2, 3 and 1 of them
part, lse = torch.randn(8, 3, 16), 4 * torch.randn(8, 3)
lse[1, 0] = -torch.inf
indptr, index = merge_lists(rows, 4)
assert indptr.tolist() == [0, 2, 4, 7, 8], indptr
out = ragged_merge(part, lse / torch.log(torch.tensor(2.0)), indptr, index, torch.empty(4, 3, 16))
wanted, _ = merge_partials_ref(part[index.long()], lse[index.long()], indptr)
torch.testing.assert_close(out, wanted)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_merge_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
