#!/bin/bash
# Builds dist/lbfwd_VERSION_ARCH.deb from the sdist in dist/ (make deb).
#
# The package holds a virtual environment for the distribution's own Python 3, in a folder that is
# named by version: a node that runs goes on with the files it was started with while another
# version is installed (postinst). PYTHON chooses the interpreter.
set -eu
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-/usr/bin/python3}
VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' lbfwd/__init__.py)
ARCH=$(dpkg --print-architecture)
ROOT=build/deb
HOME_OF_VERSION=/usr/lib/lbfwd/$VERSION
VENV=$ROOT$HOME_OF_VERSION

main() {
    rm -rf "$ROOT"
    make_environment
    install_files
    make_control
    dpkg-deb --root-owner-group -Zxz --build "$ROOT" "dist/lbfwd_${VERSION}_$ARCH.deb"
}

make_environment() {
    install -d -m 755 "$VENV"
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip -qq install --no-compile "dist/lbfwd-$VERSION.tar.gz"
    "$VENV/bin/python" -m pip -qq uninstall --yes pip setuptools
    find "$VENV/bin" -mindepth 1 ! -name 'python*' -delete
    sed -i '/^\(command\|executable\) /d' "$VENV/pyvenv.cfg"
    # Written here, since pip's names the place where it was built.
    cat >"$VENV/bin/lbfwd" <<SCRIPT
#!$HOME_OF_VERSION/bin/python
import sys

from lbfwd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
SCRIPT
    chmod 755 "$VENV/bin/lbfwd"
    find "$VENV" -name '*.so' -exec strip --strip-unneeded {} +
    find "$VENV" -name __pycache__ -prune -exec rm -rf {} +
    "$PYTHON" -m compileall -q --invalidation-mode unchecked-hash -s "$ROOT" -p / "$VENV/lib"
}

install_files() {
    local doc=$ROOT/usr/share/doc/lbfwd
    install -d -m 755 "$ROOT/etc/lbfwd" "$ROOT/usr/bin" "$doc/examples"
    ln -s "../lib/lbfwd/$VERSION/bin/lbfwd" "$ROOT/usr/bin/lbfwd"
    install -D -m 644 -t "$ROOT/usr/lib/systemd/system" deploy/*.service
    install -D -m 644 deploy/sysctl-node.conf "$ROOT/usr/lib/sysctl.d/60-lbfwd.conf"
    install -D -m 644 deploy/sysusers.conf "$ROOT/usr/lib/sysusers.d/lbfwd.conf"
    install -D -m 644 deploy/tmpfiles.conf "$ROOT/usr/lib/tmpfiles.d/lbfwd.conf"
    cp -r deploy/. "$doc/examples"
    rm -rf "$doc/examples/debian" "$doc/examples/prerequisites.sh" "$doc/examples"/*.service
    install -m 644 -t "$doc" README.md CHANGELOG.md docs/*.md
    install -m 644 LICENSE "$doc/copyright"
    chmod -R u=rwX,go=rX "$ROOT"
}

make_control() {
    install -d -m 755 "$ROOT/DEBIAN"
    local script
    for script in postinst prerm postrm; do
        sed "s/@VERSION@/$VERSION/" "deploy/debian/$script" >"$ROOT/DEBIAN/$script"
        chmod 755 "$ROOT/DEBIAN/$script"
    done
    (cd "$ROOT" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z |
        xargs -0 md5sum) >"$ROOT/DEBIAN/md5sums"
    sed -e "s/@VERSION@/$VERSION/" -e "s/@ARCH@/$ARCH/" -e "s/@PYTHON@/$(python_range)/" \
        -e "s/@LIBC@/$(libc_version)/" -e "s/@SIZE@/$(du -sk "$ROOT" | cut -f1)/" \
        deploy/debian/control >"$ROOT/DEBIAN/control"
}

# The environment's modules lie in a folder of one minor version.
python_range() {
    "$PYTHON" -c 'import sys
major, minor = sys.version_info[:2]
print(f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})")'
}

# The C library that the extension was built with.
libc_version() {
    getconf GNU_LIBC_VERSION | cut -d' ' -f2
}

main
