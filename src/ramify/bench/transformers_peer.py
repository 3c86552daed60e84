"""The peer of generation benchmarks: the same model in transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from ramify.bench.generation import Generate, Generation, release, time_generation
from ramify.core.errors import IntegrityError, expected_got
from ramify.engine.memory import GIB, step_bytes
from ramify.engine.part import model_dir_of
from ramify.models import read_config
from ramify.models.loader import resolve_dtype


class TransformersPeer:
    """A model directory as transformers runs it: default attention and cache, end-of-text off.

    Its branches share nothing: prompts are repeated before they are computed.

    Args:
        settings: of an LLM; model, device, dtype and load_format are used.
    Attributes:
        has_our_weights: they were read from files; random ones differ from ours.
    """

    name = "transformers"

    def __init__(self, settings: dict[str, Any]) -> None:
        path = model_dir_of(str(settings["model"]))
        self._device = torch.device(settings["device"])
        self._config = read_config(path)
        self._dtype = resolve_dtype(settings["dtype"], self._config, self._device)
        self.vocab_size = self._config.vocab_size
        self.has_our_weights = settings["load_format"] != "dummy"
        self._model = self._load(path)
        self._model.generation_config.eos_token_id = None

    def sample(self, prompts: Sequence[Sequence[int]], branches: int, new_tokens: int) -> Tensor:
        """Draw at temperature 1, every branch of every prompt at once.

        Args:
            prompts: of equal length.
        Returns:
            [prompts * branches, prompt + new_tokens] int64, on the host.
        """
        settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        return self._generate(prompts, new_tokens, num_return_sequences=branches, **settings)

    def beams(self, prompt: Sequence[int], beam_width: int, new_tokens: int) -> list[list[int]]:
        """Tokens of the best beams, best first."""
        widths = {"num_beams": beam_width, "num_return_sequences": beam_width}
        found = self._generate([prompt], new_tokens, do_sample=False, **widths)
        return [row[len(prompt) :] for row in found.tolist()]

    def time(
        self,
        generate: Generate,
        *,
        num_rows: int,
        prompt_tokens: int,
        new_tokens: int,
        repeats: int,
    ) -> Generation | str:
        """Time a generation of so many rows, or say why it cannot run."""
        reason = self._lack_of_memory(num_rows, prompt_tokens, new_tokens)
        if reason is not None:
            return reason
        try:
            return time_generation(
                generate, new_tokens=new_tokens, repeats=repeats, device=self._device
            )
        except torch.OutOfMemoryError:
            return "out of GPU memory"
        finally:
            release(self._device)

    def _load(self, path: Path) -> Any:
        if self.has_our_weights:
            model: Any = AutoModelForCausalLM.from_pretrained(str(path), dtype=self._dtype)
            return model.to(self._device).eval()
        with self._device:
            config = AutoConfig.from_pretrained(str(path))
            return AutoModelForCausalLM.from_config(config, dtype=self._dtype).eval()

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, **settings: Any
    ) -> Tensor:
        tokens = torch.tensor(prompts, device=self._device)
        found: Tensor = self._model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new_tokens,
            use_cache=True,
            pad_token_id=0,
            **settings,
        ).cpu()
        if found.shape[1] != tokens.shape[1] + new_tokens:
            got = found.shape[1] - tokens.shape[1]
            raise IntegrityError(expected_got(self.name, f"{new_tokens} new tokens", got))
        return found

    def _lack_of_memory(self, num_rows: int, prompt_tokens: int, new_tokens: int) -> str | None:
        """KV of every branch, and activations of all prompts in one pass, against what is free."""
        if self._device.type != "cuda":
            return None
        shape, itemsize = self._config, self._dtype.itemsize
        token_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * itemsize
        needed = num_rows * (prompt_tokens + new_tokens) * token_bytes + step_bytes(
            shape, self._dtype, max_rows=num_rows * prompt_tokens, logit_rows=num_rows
        )
        free, _ = torch.cuda.mem_get_info(self._device)
        if needed <= free:
            return None
        return f"needs {needed / GIB:.0f} GiB beside the weights, {free / GIB:.0f} GiB are free"
