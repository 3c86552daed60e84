"""Filling a decoder: from safetensors files, whole or sharded, or with seeded random numbers."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ramify.core.errors import ConfigError, expected_got
from ramify.models.checkpoint import Slot, decoder_slots
from ramify.models.decoder import Decoder
from ramify.models.fields import ConfigFields, read_json_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# on a GPU, random numbers are drawn so many at a time: 256 MiB in float32
CHUNK_ELEMENTS = 1 << 26
# buffers that early Llama checkpoints saved; they follow from config.json
DERIVED = re.compile(
    r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)"
)

# what a decoder without a head leaves to others
HEADS = re.compile(r"(lm_head|score)\.")


@torch.no_grad()
def load_weights(decoder: Decoder, model_dir: Path) -> None:
    """Copy a checkpoint into the decoder, converting to its dtype and device.

    Raises:
        ConfigError: a shard is missing, a file is corrupt, or a tensor is missing, unexpected, not
            of floating point or of the wrong shape; the message names the file and the tensor.
    """
    slots = decoder_slots(decoder)
    shards, listing = list_shards(model_dir)
    filled: set[str] = set()
    for path, promised in shards.items():
        filled |= _load_file(path, promised, slots, decoder)
    missing = sorted(slots.keys() - filled)
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ConfigError(
            expected_got(str(listing), f"tensor {missing[0]}{more}", "no such tensor")
        )


def list_shards(model_dir: Path) -> tuple[dict[Path, set[str]], Path]:
    """Files to read with the tensors promised in each, and the file that lists them.

    Raises ConfigError.
    """
    single = model_dir / SINGLE_FILE
    if single.is_file():
        return {single: set()}, single
    index = model_dir / INDEX_FILE
    if not index.is_file():
        expected = f"{SINGLE_FILE} or {INDEX_FILE}"
        raise ConfigError(expected_got(str(model_dir), expected, _other_weights(model_dir)))
    weight_map = ConfigFields(read_json_object(index), source=str(index)).section("weight_map")
    shards: dict[Path, set[str]] = {}
    for tensor, file in weight_map.values.items():
        # a name, not a path: a checkpoint must not reach outside its directory
        if not isinstance(file, str) or Path(file).name != file:
            raise weight_map.error(tensor, "the name of a file beside the index")
        shards.setdefault(model_dir / file, set()).add(tensor)
    if not shards:
        raise ConfigError(expected_got(f"{index}: weight_map", "at least one tensor", "none"))
    for path, tensors in shards.items():
        if not path.is_file():
            expected = f"shard {path.name} with {len(tensors)} tensors, as {INDEX_FILE} says"
            raise ConfigError(expected_got(str(path), expected, "no such file"))
    return shards, index


def _other_weights(model_dir: Path) -> str:
    """What lies there instead, when it is weights in a format that can run code on loading."""
    names = sorted(path.name for path in model_dir.glob("*.bin")) + sorted(
        path.name for path in model_dir.glob("*.pth")
    )
    return f"{names[0]} (convert it to safetensors)" if names else "neither file"


def _load_file(
    path: Path, promised: set[str], slots: dict[str, Slot], decoder: Decoder
) -> set[str]:
    """Copy every tensor of one file; returns their names."""
    try:
        # tensors come onto the device as they are, which then converts them faster than the host
        with safe_open(path, framework="pt", device=_device_name(decoder.device)) as file:
            names = set(file.keys())
            for name in sorted(promised - names):
                raise ConfigError(expected_got(str(path), f"tensor {name}", "no such tensor"))
            wanted = {name for name in names if not _is_redundant(name, decoder)}
            for name in sorted(wanted):
                if name not in slots:
                    raise ConfigError(
                        expected_got(str(path), "only tensors of this architecture", name)
                    )
                _fill(slots[name], file.get_tensor(name), f"{path}: {name}")
    except (SafetensorError, OSError) as error:
        raise ConfigError(expected_got(str(path), "a safetensors file", error)) from error
    return wanted


def _device_name(device: torch.device) -> str:
    """With its number: without one, safetensors means the first GPU, and torch the current one."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def _is_redundant(name: str, decoder: Decoder) -> bool:
    if not decoder.has_head and HEADS.match(name):
        return True
    is_tied = decoder.config.is_tied and name == "lm_head.weight"
    return is_tied or DERIVED.fullmatch(name) is not None


def _fill(slot: Slot, tensor: Tensor, name: str) -> None:
    if tuple(tensor.shape) != slot.shape:
        raise ConfigError(expected_got(name, f"shape {list(slot.shape)}", list(tensor.shape)))
    if not tensor.is_floating_point():
        raise ConfigError(expected_got(name, "a floating-point tensor", tensor.dtype))
    slot.target.copy_(slot.part_of(tensor))


@torch.no_grad()
def fill_random(decoder: Decoder, seed: int) -> None:
    """Fill with random numbers: norms with ones, the rest with normals of `initializer_range`.

    Each tensor draws in float32 from a generator of its own, seeded by (seed, name): the same seed
    gives the same weights, rounded to the decoder's dtype, on any device of one kind.
    """
    generator = torch.Generator(decoder.device)
    for name, slot in decoder_slots(decoder).items():
        if name.endswith("norm.weight"):
            slot.target.fill_(1.0)
            continue
        # a CPU generator heeds 32 bits of its seed: all of them have to carry both
        generator.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        for begin, end in _parts(slot.shape, decoder.device):
            shape = (end - begin, *slot.shape[1:])
            noise = torch.randn(
                shape, generator=generator, device=decoder.device, dtype=torch.float32
            )
            slot.fill_rows(begin, noise.mul_(decoder.config.init_std))


def _parts(shape: tuple[int, ...], device: torch.device) -> list[tuple[int, int]]:
    """What is drawn at once: everything on a CPU, where that fixes the bits; else some rows."""
    rows = shape[0]
    step = rows if device.type == "cpu" else max(1, CHUNK_ELEMENTS * rows // math.prod(shape))
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
