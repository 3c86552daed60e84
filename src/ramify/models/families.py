"""The architectures Ramify can run. A new one is a file like its neighbours and a line here."""

from __future__ import annotations

from ramify.models.llama import LLAMA
from ramify.models.mistral import MISTRAL
from ramify.models.qwen2 import QWEN2
from ramify.models.qwen3 import QWEN3
from ramify.models.traits import Family

FAMILIES: tuple[Family, ...] = (LLAMA, MISTRAL, QWEN2, QWEN3)
