"""Packs what a CUDA machine without internet lacks, by name, with pip and apt-get: 137 MB in four archives.

Run on Debian 12, x86-64: python -m benchmarks.gpu.pack ARCHIVES [--only sglang penstock services]
Needs pip, apt-get, dpkg-deb, strip and xz, 5 GB below the temporary folder, about ten minutes on two cores.
ARCHIVES is what benchmarks/gpu/setup.sh takes: there, Python 3.12 with torch 2.11 for CUDA 13.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.gpu.kernels import keep_only

_ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("sglang", "penstock", "services")
_PYTHON: Final = "3.12"
_GLIBC: Final = (39, 38, 37, 36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
# Run by no scenario here; the engine that it holds is a third of all the wheels.
_NOT_NEEDED: Final = {"xllamacpp"}
# What the test services and the benchmark import beside the platform.
_BESIDE: Final = ("pytest",)

# SGLang without what one Hopper card with a dense bf16 model never loads.
_LEFT_OUT: Final = (
    "sgl_kernel/sm100",
    "sgl_kernel/infllm_ops*.so",
    "sgl_kernel/flashmla_ops*.so",
    "sglang/multimodal_gen",
    "sglang/test",
    "sglang/srt/server/_core*.so",
    "sglang/srt/grpc/_core*.so",
    "sglang/srt/multimodal/_core*.so",
    "xgrammar/lib",
    "xgrammar/include",
    "flashinfer/data/cutlass",
    "flashinfer/data/cccl",
    "*.data",
    "bin",
)
_ATTENTION: Final = "sgl_kernel/flash_ops.abi3.so"
# SGLang imports it for two names that only a notebook uses.
_DISPLAY: Final = "def display(*a, **k): ...\n\n\nclass HTML: ...\n"

_SERVERS: Final = ("postgresql-15", "redis-server", "rabbitmq-server")
_WANTED: Final = re.compile(r"lib|erlang|zlib1g$|redis-tools$|" + "|".join(f"{name}$" for name in _SERVERS))
# What every machine has, what only installs, and LLVM: PostgreSQL compiles queries with it, and need not.
_HAS: Final = re.compile(
    r"lib(c6|c-|gcc|stdc|crypt1|perl|python|db5|debian|elogind|cryptsetup|devmapper|fdisk|newt|slang|proc2|gdbm|"
    r"seccomp|ip4tc|kmod|argon|apparmor|blkid|mount|smartcols|semanage|sepol|pam-|textwrap|udev|nsl2|tirpc|"
    r"wrap0|z3|popt|sqlite3|systemd-shared|llvm|audit-|json-perl|number-|file-find|text-glob)"
)
_UNREAD: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/icu", "usr/share/lintian")
_UNUSED: Final = (
    # Without LLVM beside it this part of PostgreSQL is an error; without itself it is no loss.
    "usr/lib/postgresql/*/lib/llvmjit*",
    "usr/lib/postgresql/*/lib/bitcode",
    "usr/lib/rabbitmq/lib/*/escript",  # command-line tools, each with everything in it
    *(f"usr/lib/rabbitmq/lib/*/plugins/{name}-*" for name in ("eetcd", "jose", "prometheus")),
    "usr/lib/erlang/lib/snmp-*",
    "usr/lib/erlang/lib/erl_interface-*",
)
_PLUGINS: Final = ("rabbitmq_management", "rabbitmq_prelaunch", "rabbitmq_web_dispatch")
_STARTER: Final = """#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu" PATH="$root/usr/bin:$PATH"
exec "$root/{binary}" "$@"
"""
_STARTERS: Final = {
    "initdb": "usr/lib/postgresql/15/bin/initdb",
    "postgres": "usr/lib/postgresql/15/bin/postgres",
    "redis-server": "usr/bin/redis-server",
    "rabbitmq-server": "usr/lib/rabbitmq/bin/rabbitmq-server",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="keep what is unpacked here, for another look")
    given = parser.parse_args()
    given.archives.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-pack-") as folder:
        work = given.work or Path(folder)
        makers = {"sglang": pack_sglang, "penstock": pack_penstock, "services": pack_services}
        for part in given.only:
            makers[part](work / part, given.archives)
    for archive in sorted(given.archives.iterdir()):
        print(f"{archive.stat().st_size / 1e6:7.1f} MB  {archive.name}")
    return 0


def pack_sglang(work: Path, to: Path) -> None:
    site = work / "site"
    names = (Path(__file__).parent / "sglang-wheels.txt").read_text().split()
    _wheels(names, site, resolve=False)
    display = site / "IPython"
    display.mkdir(exist_ok=True)
    (display / "__init__.py").write_text("")
    (display / "display.py").write_text(_DISPLAY)
    kept = keep_only(site / _ATTENTION, work / "flash_ops.so")
    print(f"attention kernels kept and dropped: {kept}")
    for pattern in (*_LEFT_OUT, _ATTENTION):
        _remove(site, pattern)
    _slim(site)
    # Kernels that SGLang compiles at its first start; a folder of them may be put here beforehand.
    (work / "tvmcache").mkdir(exist_ok=True)
    _call(["xz", "-6", "-T2", "-f", "-k", str(work / "flash_ops.so")])
    shutil.move(work / "flash_ops.so.xz", to / "flash_ops.so.xz")
    _archive(work, ["site", "tvmcache"], to / "rest.tar.xz")


def pack_penstock(work: Path, to: Path) -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = [one for one in project["dependencies"] if _name(one) not in _NOT_NEEDED]
    site = work / "penstock" / "site"
    _wheels([*wanted, *_BESIDE], site, resolve=True)
    for pattern in ("bin", "hf_xet*"):  # a downloader of models, which there is no network for
        _remove(site, pattern)
    _slim(site)
    _archive(work, ["penstock"], to / "penstock.tar.xz")


def pack_services(work: Path, to: Path) -> None:
    tree, packages = work / "services", work / "packages"
    for folder in (tree / "wrap", packages):
        folder.mkdir(parents=True, exist_ok=True)
    _call(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *_closure()], cwd=packages)
    for package in packages.glob("*.deb"):
        _call(["dpkg-deb", "-x", str(package), str(tree)])
    for folder in _UNREAD:
        _remove(tree, folder)
    for pattern in _UNUSED:
        _remove(tree, pattern)
    for plugin in list(tree.glob("usr/lib/rabbitmq/lib/*/plugins/rabbitmq_*")):
        if not plugin.name.startswith(_PLUGINS):
            shutil.rmtree(plugin)
    for name, binary in _STARTERS.items():
        starter = tree / "wrap" / name
        starter.write_text(_STARTER.format(binary=binary))
        starter.chmod(0o755)
    _strip(tree)
    _archive(work, ["services"], to / "services.tar.xz")


def _closure() -> list[str]:
    """The servers and what they depend on, less what the other machine has."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), *_SERVERS]
    said = _call(command)
    names = {line for line in said.splitlines() if line and line[0] not in " <|"}
    return sorted(name for name in names if _WANTED.match(name) and not _HAS.match(name))


def _wheels(names: Sequence[str], site: Path, *, resolve: bool) -> None:
    """Unpacked for the other machine's interpreter, whatever runs this one."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC]
    platforms += [f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(site), "--only-binary=:all:", "--python-version", _PYTHON]
    command += ["--implementation", "cp", *_each("--abi", ("cp312", "abi3", "none"))]
    command += _each("--platform", platforms)
    command += ["-c", str(_ROOT / "constraints.txt")] if resolve else ["--no-deps"]
    _call([*command, *names])


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _slim(site: Path) -> None:
    for folder in list(site.rglob("__pycache__")):
        shutil.rmtree(folder)
    _strip(site)


def _strip(tree: Path) -> None:
    for path in tree.rglob("*.so*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 500_000:
            subprocess.run(["strip", "--strip-debug", str(path)], capture_output=True, check=False)


def _remove(tree: Path, pattern: str) -> None:
    for path in list(tree.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _archive(work: Path, members: Sequence[str], to: Path) -> None:
    environment = os.environ | {"XZ_OPT": "-7 -T2"}
    _call(["tar", "cJf", str(to), "-C", str(work), *members], env=environment)


def _name(requirement: str) -> str:
    return re.split(r"[\[;<>=! ]", requirement, maxsplit=1)[0]


def _call(command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
