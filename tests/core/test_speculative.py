"""How drafts are configured: what is read, and what is refused with both sides named."""

from __future__ import annotations

import pytest

from ramify.core.config import EngineConfig
from ramify.core.errors import ConfigError
from ramify.core.speculative import SpeculativeConfig


def test_a_mapping_and_its_json_are_the_config_they_describe() -> None:
    wanted = SpeculativeConfig(method="suffix", num_speculative_tokens=8, max_depth=20)
    given = {"method": "suffix", "num_speculative_tokens": 8, "max_depth": 20}
    assert EngineConfig(speculative_config=given).speculative_config == wanted
    text = '{"method": "suffix", "num_speculative_tokens": 8, "max_depth": 20}'
    assert EngineConfig(speculative_config=text).speculative_config == wanted
    assert EngineConfig(speculative_config="suffix").speculative_config == SpeculativeConfig(
        method="suffix"
    )
    assert EngineConfig().speculative_config is None
    assert wanted.depth == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "eagle"}, "method: expected one of"),
        ({"tokens": 4}, "speculative_config: expected of method, .* got 'tokens'"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens: expected an int >= 1, got 0"),
        ({"max_depth": True}, "max_depth: expected an int >= 1, got True"),
        ({"prompt_lookup_min": 6}, "prompt_lookup_min: expected <= prompt_lookup_max, 5, got 6"),
        ({"method": "draft_model"}, "model: expected a model for method draft_model"),
        ({"model": "ramify-tiny"}, "and for no other, got 'ramify-tiny'"),
        ({"method": "custom"}, "drafter: expected a callable or Drafter"),
        ("{", "speculative_config: expected JSON"),
        (["ngram"], "speculative_config: expected a SpeculativeConfig or a mapping"),
    ],
)
def test_a_wrong_setting_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(speculative_config=given)
