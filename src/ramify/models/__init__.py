"""Models: a Hugging Face directory to a decoder over ragged rows, one file per family."""

from ramify.models.config import ModelConfig, read_config
from ramify.models.decoder import Decoder
from ramify.models.layers import AttendFn
from ramify.models.loader import LoadFormat, load_model, load_tokenizer, resolve_model_dir
from ramify.models.shard import Shard

__all__ = [
    "ModelConfig",
    "read_config",
    "Decoder",
    "AttendFn",
    "Shard",
    "LoadFormat",
    "load_model",
    "load_tokenizer",
    "resolve_model_dir",
]
