"""From settings to what values texts. A second model's weights come before the first one's pool.

One budget serves both models: the pools split the KV slots by `kv_share`, and the bytes of either,
like the weights, count against `gpu_memory_utilization`, `kv_gib` or `num_slots`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.core.reward import RewardConfig, reward_config
from ramify.engine.engine import Engine
from ramify.engine.memory import Beside, kv_bytes_per_token
from ramify.engine.part import Part, load_part, model_dir_of, open_engine
from ramify.engine.reward.own import OwnHead
from ramify.engine.reward.second import SecondModel
from ramify.models import Shard, resolve_model_dir
from ramify.models.reward_head import RewardHead, load_reward_head


@dataclass(frozen=True)
class LoadedReward:
    """What was loaded of a reward model: a part where it is a second model."""

    config: RewardConfig
    path: Path | None = None
    part: Part | None = None
    beside: Beside | None = None

    def attach(self, engine: Engine, settings: EngineConfig) -> None:
        """Let it value the paths of an engine, which was made with `settings`.

        Raises ConfigError: a head that does not fit, or tokens that the second model cannot read.
        """
        if self.part is None or self.path is None or self.beside is None:
            size, device = engine.executor.model.config.hidden_size, engine.executor.device
            engine.value_by_head(OwnHead(self._head(size, device), self.config.suffix or ()))
            return
        assert settings.num_slots is not None, "the first pool is there"
        second = self._open(self.path, self.part, self.beside.slots(settings.num_slots))
        engine.value_by_model(SecondModel(second, self.config, engine.live.codec))

    def _open(self, path: Path, part: Part, num_slots: int) -> Engine:
        """The second model's engine."""
        if num_slots < 2:
            got = f"{num_slots} by a kv_share of {self.config.kv_share}"
            raise ConfigError(expected_got("reward_model", "at least 2 KV slots", got))
        engine = open_engine(path, part._replace(config=replace(part.config, num_slots=num_slots)))
        if self.config.labels is None:
            size = part.model.config.hidden_size
            engine.value_by_head(OwnHead(self._head(size, part.model.device)))
        else:
            for label in self.config.labels:
                engine.live.codec.label(label)
        return engine

    def _head(self, hidden_size: int, device: torch.device) -> RewardHead:
        place = self.config.head
        directory = self.path if place is None else resolve_model_dir(place)
        assert directory is not None, "a config names a model or a head"
        return load_reward_head(
            directory,
            hidden_size=hidden_size,
            device=device,
            activation=self.config.activation,
            positive_label=self.config.positive_label,
        )


def load_reward(engine: EngineConfig) -> LoadedReward | None:
    """Load what `reward_model` names, but for a pool. Raises ConfigError."""
    config = reward_config(engine.reward_model)
    if config is None or config.model is None:
        return None if config is None else LoadedReward(config)
    has_labels = config.labels is not None
    settings = replace(
        engine,
        model=config.model,
        # a pool of its own comes later
        num_slots=2,
        kv_gib=None,
        max_context=None,
        quantization="none",
        kv_cache_dtype="auto",
        run_ahead=False,
        # there is nothing to draw from hidden states, as a graph would
        cuda_graphs=engine.cuda_graphs and has_labels,
        tensor_parallel_size=1,
        speculative_config=None,
        reward_model=None,
    )
    path = model_dir_of(config.model)
    part = load_part(path, settings, Shard(), has_head=has_labels)
    itemsize = next(part.model.parameters()).itemsize
    beside = Beside(
        token_bytes=kv_bytes_per_token(part.model.config, itemsize),
        step_bytes=part.step_bytes,
        share=config.kv_share,
    )
    return LoadedReward(config, path, part, beside)
