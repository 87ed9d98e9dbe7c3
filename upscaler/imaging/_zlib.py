"""zlib from Intel's ISA-L if it is installed: the same functions, several times as fast."""

try:
    from isal import isal_zlib as zlib
except ModuleNotFoundError:  # there is no build of it for Windows on ARM
    import zlib  # type: ignore[no-redef]

ZlibError: type[Exception] = zlib.error  # type: ignore[assignment]  # isal's types have an instance

__all__ = ["ZlibError", "zlib"]
