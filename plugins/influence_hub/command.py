"""``influence push``: the only way in which anything of a run leaves this machine for a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[
        Path, typer.Argument(help="A folder that `influence export --to datasets` or `--to adapter` wrote.")
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub; made if it is new.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository for everybody to read.")] = False,
    message: Annotated[str, typer.Option("--message", help="Of the commit.")] = "Add what influence exported",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="What was pushed, as JSON on stdout.")] = False,
) -> None:
    """Push an exported data set or adapter to the Hugging Face hub, private unless --public.

    The key is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names another hub.
    """
    from influence_hub.pushing import plan_push, push_folder

    plan = plan_push(folder, repository, public=public)
    if not yes:
        files = f"{len(plan.files)} files, {plan.size / 1e6:.1f} MB"
        who = "everybody" if public else "you"
        typer.echo(f"{files} go to the {plan.kind} {plan.repository} on {plan.endpoint}, for {who} to read.", err=True)
        typer.confirm("Push them?", abort=True, err=True)
    where = push_folder(plan, message)
    if json:
        import orjson

        told = {"schema": "influence.push/1", "repository": plan.repository, "kind": plan.kind, "url": where}
        typer.echo(orjson.dumps({**told, "files": plan.files, "private": not public}).decode())
    else:
        typer.echo(f"Pushed to {where}.", err=True)
