"""`sb password`: somebody changes their own password, above all a temporary one."""

from __future__ import annotations

import argparse
import sys

import httpx

from sb.cli import remote


def configure(_name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its options and what it runs."""
    remote.add_options(parser)
    parser.set_defaults(run=lambda options: remote.run(options, _change))


def _change(http: httpx.Client, options: argparse.Namespace) -> int:
    body = {"current_password": remote.password(options), "new_password": remote.new_password()}
    remote.call(http, "POST", "/users/me/password", body)
    if not options.json:
        sys.stdout.write("The password is changed; your other sessions have ended.\n")
    return 0
