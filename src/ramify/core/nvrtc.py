"""CUDA C++ compiled at run time: no compiler on the user's machine, a cubin in the user's cache.

NVRTC and the driver's bindings come with torch's CUDA builds. A cubin is kept under the hash of
its source, options and compiler version, so a machine compiles a kernel once.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ramify.core.env import cache_dir
from ramify.core.errors import BackendUnavailable

logger = logging.getLogger(__name__)


def compile_cubin(source: str, arch: str, options: Sequence[str] = ()) -> bytes:
    """Machine code of one translation unit, from the cache where it is there. Needs no GPU.

    Args:
        arch: as in `sm_90a`.
    Raises:
        BackendUnavailable: NVRTC is not installed.
    """
    arguments = _arguments(arch, options)
    version = checked(bindings("nvrtc").nvrtcVersion())
    key = hashlib.sha256(repr((source, arguments, version)).encode()).hexdigest()[:32]
    path = cache_dir() / "cubins" / f"{key}.cubin"
    if path.is_file():
        return path.read_bytes()
    cubin, _ = compile_with_log(source, arch, options)
    _keep(path, cubin)
    return cubin


def compile_with_log(source: str, arch: str, options: Sequence[str] = ()) -> tuple[bytes, str]:
    """The same past the cache, and what the compiler said."""
    nvrtc = bindings("nvrtc")
    (program,) = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], []))
    try:
        arguments = [word.encode() for word in _arguments(arch, options)]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
        (size,) = checked(nvrtc.nvrtcGetProgramLogSize(program))
        text = _room(size)
        checked(nvrtc.nvrtcGetProgramLog(program, text))
        log = text.rstrip(b" \0\n").decode(errors="replace")
        assert not int(status), f"a kernel does not compile: {log}"
        (size,) = checked(nvrtc.nvrtcGetCUBINSize(program))
        cubin = _room(size)
        checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        checked(nvrtc.nvrtcDestroyProgram(program))
    return cubin[:size], log


def _room(size: int) -> bytes:
    """Bytes for a C function to write into: never a single one, which Python shares."""
    return b" " * max(size, 2)


def _arguments(arch: str, options: Sequence[str]) -> list[str]:
    return [f"--gpu-architecture={arch}", "--std=c++17", "-default-device", *options]


def _keep(path: Path, cubin: bytes) -> None:
    """Write beside and rename: no process reads half a file. A full disk is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(cubin)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("compiled kernels cannot be kept in %s (%s)", path.parent, error)


class CudaKernel:
    """One kernel of a cubin in the present CUDA context, taking one struct by value."""

    def __init__(self, cubin: bytes, name: str, shared_bytes: int = 0, cluster: int = 1) -> None:
        self._driver = driver = bindings("driver")
        (self._module,) = checked(driver.cuModuleLoadData(cubin))
        (self._function,) = checked(driver.cuModuleGetFunction(self._module, name.encode()))
        if shared_bytes:
            attributes = driver.CUfunction_attribute
            limit = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            checked(driver.cuFuncSetAttribute(self._function, limit, shared_bytes))
        self._config = driver.CUlaunchConfig()
        self._config.gridDimY = self._config.gridDimZ = 1
        self._config.blockDimY = self._config.blockDimZ = 1
        self._config.sharedMemBytes = shared_bytes
        early = driver.CUlaunchAttribute()
        early.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        early.value.programmaticStreamSerializationAllowed = 1
        attributes = [early]
        if cluster > 1:
            size = driver.CUlaunchAttribute()
            size.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            size.value.clusterDim.x = cluster
            size.value.clusterDim.y = size.value.clusterDim.z = 1
            attributes.insert(0, size)
        self._config.attrs = attributes
        self._num_attributes = len(attributes)

    def launch(
        self, grid: int, block: int, stream: int, parameters: ctypes.Structure, early: bool = False
    ) -> None:
        """Queue one launch; the struct is copied before this returns.

        Args:
            early: it may start beside the launch before it, and waits for that one by itself.
        """
        self._config.gridDimX, self._config.blockDimX = grid, block
        self._config.hStream = stream
        # an early start is the last attribute
        self._config.numAttrs = self._num_attributes - int(not early)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(parameters))
        address = ctypes.addressof(pointers)
        checked(self._driver.cuLaunchKernelEx(self._config, self._function, address, 0))


def require_compiler() -> None:
    """Raise BackendUnavailable where kernels can be neither compiled nor launched."""
    for name in ("driver", "nvrtc"):
        bindings(name)


def bindings(name: str) -> Any:
    """A module of cuda.bindings. Raises BackendUnavailable where it cannot be loaded."""
    try:
        module = import_module(f"cuda.bindings.{name}")
        if name == "nvrtc":
            module.nvrtcVersion()  # loads the library
    except (ImportError, RuntimeError) as error:
        reason = f"cuda.bindings and NVRTC are needed: {error}"
        raise BackendUnavailable("CUDA C++", reason) from error
    return module


def checked(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drop the status in front of a call's results."""
    status, *values = result
    if int(status):
        raise RuntimeError(f"CUDA: {status}")
    return tuple(values)
