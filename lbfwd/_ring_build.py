"""cffi build of lbfwd._ringlib (never named _ring: the build would overwrite _ring.c)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()
for contract in ("_ring.h", "_fleet.h"):
    ffibuilder.cdef((HERE / contract).read_text(encoding="utf-8"))
ffibuilder.set_source(
    "lbfwd._ringlib",
    '#include "_contract.h"',
    sources=["lbfwd/_ring.c", "lbfwd/_setup.c"],
    include_dirs=["lbfwd"],
    depends=sorted(f"lbfwd/{header.name}" for header in HERE.glob("*.h")),
    extra_compile_args=["-O3", "-std=gnu11", "-Wall", "-Wextra", "-fno-strict-aliasing"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
