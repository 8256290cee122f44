#!/bin/sh
# Unpacks the archives of ARCHIVES below PREFIX, on a machine without internet. Run as root or not.
# usage: setup.sh ARCHIVES PREFIX
set -eu
from=$1 to=$2
mkdir -p "$to/sglang/site/sgl_kernel"
unpack() { [ ! -f "$from/$1" ] || python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1], "r:xz").extractall(sys.argv[2], filter="fully_trusted")' "$from/$1" "$2"; }
unpack rest.tar.xz "$to/sglang" &
unpack penstock.tar.xz "$to" &
unpack services.tar.xz "$to" &
# Most of the attention library is zeros, the kernels of other cards: holes in the file, not blocks.
python3 - "$from/flash_ops.so.xz" "$to/sglang/site/sgl_kernel/flash_ops.abi3.so" <<'PY'
import lzma, os, sys
if os.path.exists(sys.argv[1]):
    with lzma.open(sys.argv[1]) as source, open(sys.argv[2], "wb") as target:
        while block := source.read(1 << 20):
            target.seek(len(block), 1) if not any(block) else target.write(block)
        target.truncate()
PY
wait
for wheel in "$from"/*.whl; do [ ! -f "$wheel" ] || python3 -m zipfile -e "$wheel" "$to/penstock/site"; done
python3 -m compileall -q -j 0 "$to/sglang/site" "$to/penstock/site" >/dev/null 2>&1 || true
# An environment apart from the one that holds torch: SGLang's pins conflict with the platform's.
if [ ! -x "$to/penstock/venv/bin/python" ]; then
    python3 -m venv --without-pip "$to/penstock/venv"
    echo "$to/penstock/site" > "$("$to/penstock/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/penstock.pth"
fi
# PostgreSQL refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    for user in postgres rabbitmq; do getent passwd $user >/dev/null || useradd --system --no-create-home $user; done
    # Erlang's start script names this folder whatever its environment says.
    [ -e /usr/lib/erlang ] || ln -s "$to/services/usr/lib/erlang" /usr/lib/erlang
    chmod -R a+rX "$to/services" && chmod a+x "$to"
fi
