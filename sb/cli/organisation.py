"""`sb apply` and `sb export`: the whole organisation as one reviewed file, over HTTP."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Hashable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import yaml

from sb.cli import remote
from sb.cli.remote import RefusedError, shown

#: What something in the file is called, by the first of these it has.
NAMED_BY = ("name", "path", "secret_ref", "person")
SIGNS = {"create": "+", "update": "~"}
#: With --exit-code: the plan would change something.
CHANGES = 2


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: the second would silently win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read(text: str) -> Any:
    """Return what the file says as JSON would say it, or raise yaml.YAMLError."""
    return json.loads(json.dumps(yaml.load(text, _Loader), default=_time))  # noqa: S506 # a SafeLoader


class _Dumper(yaml.SafeDumper):
    """Text that reads as it was: elsewhere than between double quotes a next-line is a space."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "\x85" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def written(document: Any) -> str:
    """Return the file that `read` takes back as the same document."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _time(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    msg = f"{type(value).__name__} has no place in this file"
    raise TypeError(msg)


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Give the command its options and what it runs."""
    remote.add_options(parser)
    if name == "export":
        parser.add_argument("-o", "--output", type=Path, help="write to this file")
        parser.set_defaults(run=_export)
        return
    parser.add_argument("-f", "--file", type=Path, required=True, help="the file; - reads input")
    parser.add_argument(
        "--plan", action="store_true", help="show what would change, change nothing"
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="with --plan: exit with 2 if there are changes"
    )
    parser.set_defaults(run=_apply)


def _apply(options: argparse.Namespace) -> int:
    try:
        text = sys.stdin.read() if str(options.file) == "-" else options.file.read_text("utf-8")
        document = read(text)
    except (OSError, UnicodeDecodeError, TypeError, ValueError, yaml.YAMLError) as problem:
        sys.stderr.write(f"{options.file} cannot be read: {problem}\n")
        return 1
    if document is None:
        sys.stderr.write(f"{options.file} cannot be applied: the file is empty\n")
        return 1
    return remote.run(options, lambda http, _: _plan_and_apply(http, options, document))


def _plan_and_apply(http: httpx.Client, options: argparse.Namespace, document: Any) -> int:
    plan = _send(http, document, plan=True)
    changes = plan["created"] + plan["updated"]
    if not options.json:
        _show(plan)
    if options.plan or not changes:
        if options.json:
            sys.stdout.write(json.dumps(plan) + "\n")
        return CHANGES if options.plan and options.exit_code and changes else 0
    done = _send(http, document, plan=False)
    if options.json:
        sys.stdout.write(json.dumps(done) + "\n")
        return 0
    if done["steps"] != plan["steps"]:
        sys.stdout.write("Somebody changed something meanwhile; this was done instead:\n")
        _show(done)
    sys.stdout.write("Applied.\n")
    return 0


def _send(http: httpx.Client, document: Any, *, plan: bool) -> Any:
    try:
        return remote.call(http, "POST", f"/organisation/apply?plan={str(plan).lower()}", document)
    except RefusedError as problem:
        raise RefusedError(_with_places(problem, document), problem.body) from None


def _with_places(problem: RefusedError, document: Any) -> str:
    """Return what was refused with every place of the file as people look for it."""
    text, body = str(problem), problem.body if isinstance(problem.body, dict) else {}
    for field in (one["field"] for one in body.get("fields", ()) if one["field"]):
        told = shown(place_of(document, field))
        text = text.replace(f"\n  {shown(field)}: ", f"\n  {told}: ", 1)
    if body.get("at") and not body.get("fields"):
        text += f"\n  {shown(place_of(document, body['at']))}"
    return text


def place_of(document: Any, field: str) -> str:
    """Return a place of the file as people write it, with what is named there.

    `projects.2.environments.0.kind` is `projects[2].environments[0].kind "billing/dev"`.
    """
    place, names, node = "", list[str](), document
    for part in field.split("."):
        if isinstance(node, list) and part.isdecimal():
            place += f"[{part}]"
            node = node[int(part)] if int(part) < len(node) else None
            names += _names_of(node)
        else:
            place += f".{part}" if place else part
            node = node.get(part) if isinstance(node, dict) else None
    return f'{place} "{"/".join(names)}"' if names else place


def _names_of(item: Any) -> list[str]:
    found = [item.get(key) for key in NAMED_BY] if isinstance(item, dict) else []
    return [name for name in found if isinstance(name, str)][:1]


def _show(plan: Any) -> None:
    for step in plan["steps"]:
        if step["action"] in SIGNS:
            line = f"{SIGNS[step['action']]} {step['action']} {step['kind']} {step['name']}"
            sys.stdout.write(shown(line) + "\n")
            for change in step["changes"]:
                sys.stdout.write(shown(f"    {change['field']}: {_values(step, change)}") + "\n")
    counts = f"{plan['created']} to create, {plan['updated']} to update"
    sys.stdout.write(f"{counts}, = {plan['unchanged']} unchanged\n")


def _values(step: Any, change: Any) -> str:
    before, after = (json.dumps(change[key], ensure_ascii=False) for key in ("before", "after"))
    return after if step["action"] == "create" else f"{before} -> {after}"


def _export(options: argparse.Namespace) -> int:
    return remote.run(options, _write)


def _write(http: httpx.Client, options: argparse.Namespace) -> int:
    found = remote.call(http, "GET", "/organisation/export")
    document = found["document"]
    text = json.dumps(document) + "\n" if options.json else written(document)
    for what in found["left_out"]:
        sys.stderr.write(shown(f"left out: {what}") + "\n")
    if options.output is None:
        sys.stdout.write(text)
        return 0
    try:
        options.output.write_text(text, "utf-8")
    except OSError as problem:
        msg = f"{options.output} cannot be written: {problem.strerror}"
        raise RefusedError(msg) from None
    return 0
