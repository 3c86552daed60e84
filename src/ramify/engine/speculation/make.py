"""From a config to the drafter it names."""

from __future__ import annotations

from pathlib import Path

from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError, expected_got
from ramify.core.speculative import SpeculativeConfig
from ramify.engine.speculation.draft import Drafter
from ramify.engine.speculation.draft_model import ModelDrafter, open_draft_model
from ramify.engine.speculation.external import CallableDrafter
from ramify.engine.speculation.medusa import open_medusa
from ramify.engine.speculation.ngram import NgramDrafter
from ramify.engine.speculation.suffix import SuffixDrafter
from ramify.models import read_config


def make_drafter(config: SpeculativeConfig, engine: EngineConfig, target: Path) -> Drafter:
    """Build the drafter of an engine with these settings, whose model lies in `target`.

    Raises:
        ConfigError: the draft model or heads cannot be loaded or have another vocabulary, or a
            custom drafter is none.
    """
    bounds = {"min_match": config.prompt_lookup_min, "max_match": config.prompt_lookup_max}
    if config.method == "ngram":
        return NgramDrafter(**bounds)
    if config.method == "suffix":
        return SuffixDrafter(**bounds)
    if config.method == "draft_model":
        executor = open_draft_model(config, engine, read_config(target).vocab_size)
        return ModelDrafter(executor, num_slots=config.num_slots, width=config.width)
    if config.method == "medusa":
        return open_medusa(config, engine, target)
    drafter = config.drafter
    if hasattr(drafter, "propose") and hasattr(drafter, "learn"):
        made: Drafter = drafter
        return made
    if not callable(drafter):
        wanted = "a callable or an object with propose and learn"
        raise ConfigError(expected_got("drafter", wanted, repr(drafter)))
    return CallableDrafter(drafter)
