"""cffi build of lbfwd._ringlib (never named _ring: the build would overwrite _ring.c)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_ring.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "lbfwd._ringlib",
    '#include <stdint.h>\n#include "_ring.h"',
    sources=["lbfwd/_ring.c", "lbfwd/_setup.c"],
    include_dirs=["lbfwd"],
    depends=sorted(f"lbfwd/{header.name}" for header in HERE.glob("*.h")),
    extra_compile_args=["-O3", "-std=gnu11", "-Wall", "-Wextra", "-fno-strict-aliasing"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
