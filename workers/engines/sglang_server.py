"""The child process: SGLang's own HTTP server, run with `python -m` in the environment that holds it."""

import runpy
import sys

from workers.engines.tether import die_with_parent


def main() -> None:
    # Arguments arrive on standard input: the API key among them is for no process list.
    arguments = sys.stdin.buffer.readline().decode().rstrip("\n").split("\0")
    die_with_parent()
    sys.argv = ["sglang.launch_server", *arguments]
    runpy.run_module("sglang.launch_server", run_name="__main__")


if __name__ == "__main__":
    main()
