"""Debian's own kernel, as a package brings it: fetched and unpacked, never installed.

And the initramfs that it starts with: busybox, the modules that reach the host's files, init.sh.
"""

import lzma
import shlex
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "linux-image-amd64"  # depends on the newest kernel of this release
# What the guest needs before it sees the host's files. crc32c_generic: others look for it by name.
EARLY = ("crc32c_generic", "virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")


@dataclass(frozen=True)
class Kernel:
    """A kernel that qemu can start, uncompressed, and the folder with its modules."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        return self.modules.name


def fetch(directory: Path) -> Kernel:
    """Return the kernel; download and unpack it where ``directory`` does not hold it yet."""
    root = directory / _newest()
    if not (root / "vmlinux").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        # As root: apt's own user may not enter the folder.
        _run("apt-get", "-qq", "download", "-o", "APT::Sandbox::User=root", root.name, cwd=root)
        (archive,) = root.glob("*.deb")
        _run("dpkg-deb", "-x", str(archive), str(root))
        archive.unlink()
        (modules,) = (root / "lib/modules").iterdir()
        _run("depmod", "-b", str(root), modules.name)
        (compressed,) = (root / "boot").glob("vmlinuz-*")
        # Under this name last: it says that all the rest is there.
        unfinished = root / "unfinished"
        unfinished.write_bytes(vmlinux(compressed.read_bytes()))
        unfinished.rename(root / "vmlinux")
    (modules,) = (root / "lib/modules").iterdir()
    return Kernel(root / "vmlinux", modules)


def vmlinux(image: bytes) -> bytes:
    """Return the ELF file in a bzImage: the emulated processor would take seconds to unpack it.

    Offsets: Documentation/arch/x86/boot.rst, setup_sects and payload_offset (protocol 2.08).
    """
    payload_offset, payload_length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + payload_offset
    # The last four bytes are the length when unpacked, not part of the stream.
    return lzma.LZMADecompressor().decompress(image[start : start + payload_length])


def initramfs(kernel: Kernel, repository: Path, directory: Path) -> Path:
    """Write the initramfs below ``directory``; the guest will work in ``repository``."""
    root = directory / "initramfs"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "host", "changes", "new"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "busybox", root / "bin/busybox")
    shutil.copy(HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    order = _early_modules(kernel)
    for module in order:
        shutil.copy(module, root / "modules")
    settings = {
        "MODULES": " ".join(module.name for module in order),
        "ALL_MODULES": str(kernel.modules.parent),
        "REPOSITORY": str(repository),
    }
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    (root / "settings").write_text("".join(lines))
    archive = directory / "initramfs.cpio"
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=names.encode(), cwd=root, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    archive.write_bytes(packed.stdout)
    return archive


def _early_modules(kernel: Kernel) -> list[Path]:
    """Return the files of EARLY and of what they need, each behind what it needs itself."""
    base = str(kernel.modules.parents[2])
    order: dict[Path, None] = {}
    for name in EARLY:
        text = _run("modprobe", "-d", base, "-S", kernel.version, "--show-depends", name)
        lines = (line.split() for line in text.splitlines())
        order |= {Path(words[1]): None for words in lines if words[0] == "insmod"}
    return list(order)


def _newest() -> str:
    text = _run("apt-cache", "depends", PACKAGE)
    found = [line.split()[-1] for line in text.splitlines() if "Depends: linux-image-" in line]
    if not found:
        raise RuntimeError(f"no package {PACKAGE} here: the tests need Debian's kernel")
    return found[0]


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(argv)}: {done.stderr.strip()}")
    return done.stdout
