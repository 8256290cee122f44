"""`penstock submit`, `get`, `list` and `cancel`: the API from a shell, a person's or a pipe's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.service_class import ServiceClass

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer()
_PANEL = "Jobs"
_MOST_CANCELLED = 1000  # in one request

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
JobId = Annotated[str, typer.Argument(help="Id of the job, `job_…`.")]


@app.command(rich_help_panel=_PANEL)
def submit(  # noqa: PLR0913 - a command line's options
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads standard input.")] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(help='JSON lines, each {"prompt": …} or a whole job; - reads standard input.'),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Served name; needed when several are.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt before the prompt.")] = None,
    service_class: Annotated[ServiceClass | None, typer.Option("--class", help="Service class.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="Inside the class; 9 first.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy.")] = None,
    wait: Annotated[
        bool | None, typer.Option(help="Wait for the answer; the default with --file only.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the answer as it is written.")] = False,
    as_json: Json = False,
) -> None:
    """Submit one prompt, or a file of them. Prints the job's id, or with --wait or --follow the answer."""
    terms = {
        "model": model,
        "service_class": service_class.value if service_class else None,
        "priority": priority,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    terms = {name: value for name, value in terms.items() if value is not None}
    if (prompt is None) == (file is None):
        raise typer.BadParameter("give either a prompt or --file")
    if file is not None:
        from cli.bulk import submit_file

        waits = wait is not False
        raise typer.Exit(submit_file(file, terms, system=system, wait=waits, as_json=as_json))
    text = _piped_prompt() if prompt == "-" else str(prompt)
    _submit_one({**terms, **_question(text, system)}, wait=bool(wait), follow=follow, as_json=as_json)


@app.command(rich_help_panel=_PANEL)
def get(
    job: JobId,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Print every change of it instead.")] = False,
    as_json: Json = False,
) -> None:
    """Print a job: its answer when it has one, else its status."""
    client = _client()
    if timeline:
        _show_timeline(client, job, as_json=as_json)
        return
    _show(client.wait(job) if wait else client.call("GET", f"/v1/jobs/{job}"), as_json=as_json)


@app.command("list", rich_help_panel=_PANEL)
def list_jobs(
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs in this status.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    service_class: Annotated[ServiceClass | None, typer.Option("--class", help="Only of this class.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    from cli.console import emit, show_table

    wanted = {"status": status, "model": model, "service_class": service_class, "tag": tag}
    given = {name: value for name, value in wanted.items() if value is not None}
    jobs = _page_through(_client(), given, limit)
    if as_json:
        for job in jobs:
            emit(job)
        return
    columns = ("id", "status", "model", "service_class", "priority", "created_at")
    show_table(columns, [[job[column] for column in columns] for job in jobs])


@app.command(rich_help_panel=_PANEL)
def cancel(
    jobs: Annotated[list[str], typer.Argument(help="Ids of the jobs; - reads standard input.")],
    *,
    as_json: Json = False,
) -> None:
    """Cancel jobs, however many at once; a running one leaves the engine."""
    from cli.console import emit, say

    ids = [job_id for one in jobs for job_id in (sys.stdin.read().split() if one == "-" else [one])]
    client, unknown = _client(), False
    for start in range(0, len(ids), _MOST_CANCELLED):
        body = {"ids": ids[start : start + _MOST_CANCELLED]}
        for told in client.call("POST", "/v1/jobs/bulk/cancel", json=body)["data"]:
            if told["job"] is None:
                unknown = True
                say(told["error"]["detail"])
            elif as_json:
                emit(told["job"])
            else:
                typer.echo(f"{told['job']['id']}\t{told['job']['status']}")
    if unknown:
        raise typer.Exit(1)


def _show_timeline(client: Client, job_id: str, *, as_json: bool) -> None:
    from cli.console import emit
    from cli.timeline import show_timeline

    changes = client.call("GET", f"/v1/jobs/{job_id}/timeline")["data"]
    if not as_json:
        show_timeline(changes)
        return
    for change in changes:
        emit(change)


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())


def _piped_prompt() -> str:
    from core.errors import BadInput

    text = sys.stdin.read()
    if not text.strip():
        raise BadInput("no prompt came on standard input: pipe a text into it, or give the prompt itself.")
    return text


def _question(text: str, system: str | None) -> dict[str, Any]:
    if system is None:
        return {"prompt": text}
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}


def _submit_one(body: dict[str, Any], *, wait: bool, follow: bool, as_json: bool) -> None:
    from cli.console import emit, say

    client = _client()
    job = client.call("POST", "/v1/jobs", json=body)
    if follow:
        _follow(client, job["id"], as_json=as_json)
    elif wait:
        _show(client.wait(job["id"]), as_json=as_json)
    elif as_json:
        emit(job)
    else:
        typer.echo(job["id"])
        say(f"{job['status']}; `penstock get --wait {job['id']}` waits for the answer")


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    """Tokens as they arrive; with --json the events themselves."""
    from cli.console import emit, say

    for event in client.follow(job_id):
        if as_json:
            emit({"event": event.kind, **event.data})
        elif event.kind == "token":
            typer.echo(event.data.get("text") or "", nl=False)
        elif event.kind == "reset":
            say("\n(the worker was lost; the answer starts again)")
    job = client.call("GET", f"/v1/jobs/{job_id}")
    if not as_json:
        typer.echo()
    _exit_unless_completed(job)


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    from cli.console import emit

    if as_json:
        emit(job)
    elif job["status"] == "completed":
        typer.echo(job["output"]["text"])
    elif job["status"] not in {"failed", "cancelled", "expired"}:
        typer.echo(job["status"])
    if job["status"] in {"failed", "cancelled", "expired"}:
        _exit_unless_completed(job)


def _exit_unless_completed(job: dict[str, Any]) -> None:
    from cli.console import say

    if job["status"] != "completed":
        reason = (job.get("error") or {}).get("message")
        say(f"{job['id']} {job['status']}{f': {reason}' if reason else ''}")
        raise typer.Exit(1)


def _page_through(client: Client, given: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    after: str | None = None
    while len(jobs) < limit:
        page = client.call(
            "GET",
            "/v1/jobs",
            params={**given, "limit": min(100, limit - len(jobs)), **({"after": after} if after else {})},
        )
        jobs += page["data"]
        after = page["last_id"]
        if not page["has_more"]:
            break
    return jobs
