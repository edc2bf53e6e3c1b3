"""`sb`: one command with the processes, the dev mode and requests from a terminal."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

COMMANDS = {
    "dev": ("sb.cli.dev", "run API, worker and agent in one process with sample data"),
    "api": ("sb.cli.processes", "serve the API"),
    "worker": ("sb.cli.processes", "run the sweeps"),
    "agent": ("sb.cli.processes", "run the agent inside a target network"),
    "migrate": ("sb.cli.processes", "bring the database schema to this release"),
    "check": ("sb.cli.processes", "check the settings of a process and say what is wrong"),
    "apply": ("sb.cli.organisation", "create and change what a file of the organisation names"),
    "export": ("sb.cli.organisation", "write the organisation as a file that can be applied"),
    "password": ("sb.cli.password", "change your own password"),
    "recover": ("sb.cli.recover", "let an account in again from the machine of the database"),
    "request": ("sb.cli.request", "submit, decide and reveal requests from a terminal"),
}


#: What a command needs beyond the base packages, by the extra that brings it.
EXTRAS = {"agent": "agent"}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 refused or failed, 2 wrong usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0].startswith("sb"):
            raise
        extra = EXTRAS.get(arguments[0], "server")
        sys.stderr.write(
            f"sb {arguments[0]} needs packages that are not installed ({problem.name}): "
            f"pip install 'secrets-bridge[{extra}]'\n"
        )
        return 1


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sb", description="Secrets Bridge: access to secrets, approved, sealed and on record."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    wanted = arguments[0] if arguments else ""
    for name, (module, help_text) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name == wanted:
            # Only the wanted command's module is loaded: an agent never loads a web framework.
            importlib.import_module(module).configure(name, command)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def default_data_dir() -> Path:
    """Return where dev mode keeps its files."""
    return Path.home() / ".local" / "share" / "secrets-bridge" / "dev"


if __name__ == "__main__":
    sys.exit(main())
