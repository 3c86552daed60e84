"""numba's `njit` with types and a cache on disk: plain loops at machine speed.

`@njit` on a function of integers, floats and numpy arrays compiles it on its first call, once per
combination of argument types, and keeps the result beside the source, or in a user directory where
that cannot be written. The cache of a function is renewed when its own file changes, not when a
file it calls into does: a compiled function and its compiled helpers belong in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def njit(function: Function, /) -> Function: ...


@overload
def njit(**options: Any) -> Callable[[Function], Function]: ...


def njit(function: Any = None, /, **options: Any) -> Any:
    """Compile `function` in nopython mode, cached; `options` are those of `numba.njit`.

    NUMBA_DISABLE_JIT=1 runs such functions as the Python they are, for a debugger or coverage.
    """
    if function is None:
        return lambda given: _compiled(given, options)
    return _compiled(function, options)


def _compiled(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return numba.njit(**{"cache": True, **options})(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        # no directory can be written: compiling in every process beats failing at import
        return numba.njit(**{**options, "cache": False})(function)
