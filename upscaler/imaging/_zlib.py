"""zlib, by ISA-L where there is a build of it: the same functions, several times as fast."""

try:
    from isal import isal_zlib as zlib
except ModuleNotFoundError:  # on Windows on ARM
    import zlib  # type: ignore[no-redef]

__all__ = ["zlib"]
