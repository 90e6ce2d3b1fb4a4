"""The description of the API: ``/openapi.json`` for programs, and ``/docs`` for people, without scripts."""

import json
from functools import partial
from html import escape
from typing import Any

from sanic import HTTPResponse, Request, Sanic, html
from sanic import json as json_response

from api.docs.openapi import document
from api.routes import OPERATIONS

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: 14px/1.4 ui-monospace, monospace; background: #f4f4f4; border-radius: 4px }
code { padding: 0 .3em } pre { padding: .8rem; overflow-x: auto }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem .3rem 0 }
"""


def add_docs(app: Sanic, *, needs_keys: bool, console_url: str) -> None:
    """Serve the document and the pages, for which nobody needs a key. They are made once.

    Parameters:
      console_url: Of the web console, to which the first page links; empty for none.
    """
    described = document(needs_keys=needs_keys)
    page, root = _page(described), first_page(described, console_url)

    async def openapi(_: Request) -> HTTPResponse:
        return json_response(described, dumps=partial(json.dumps, ensure_ascii=False))

    async def index(_: Request) -> HTTPResponse:
        return html(
            root, headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )

    async def docs(_: Request) -> HTTPResponse:
        # The page may neither load nor run anything, whatever a future text contains.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return html(page, headers={"content-security-policy": policy})

    app.add_route(openapi, "/openapi.json", methods=["GET", "HEAD"], name="openapi")
    app.add_route(index, "/", methods=["GET", "HEAD"], name="index")
    app.add_route(docs, "/docs", methods=["GET", "HEAD"], name="docs")


def first_page(described: dict[str, Any], console_url: str) -> str:
    """The page that says what this is, and where what is.

    Parameters:
      described: The OpenAPI document.
      console_url: Of the web console; empty for none.
    """
    info = described["info"]
    console = [f"<li><a href='{escape(console_url)}'>The web console</a>, for operators</li>"]
    return _document(
        info["title"],
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>",
        "<ul>",
        "<li><a href='/docs'>The API</a>, with examples; for programs: ",
        "<a href='/openapi.json'>OpenAPI</a></li>",
        "<li><a href='/readyz'>Health</a>: what is missing, and <a href='/livez'>whether it runs</a></li>",
        *(console if console_url else []),
        "</ul>",
    )


def _document(title: str, *parts: str) -> str:
    return "\n".join(
        [
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width'>",
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *parts,
            "</body></html>",
        ]
    )


def _page(described: dict[str, Any]) -> str:
    info = described["info"]
    examples = {(operation.path, operation.method.lower()): operation.example for operation in OPERATIONS}
    sections = [
        _operation(method, path, operation, examples[path, method])
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        f"<h3 id='{escape(name)}'>{escape(name)}</h3>"
        f"<pre>{escape(json.dumps(schema, indent=2, ensure_ascii=False))}</pre>"
        for name, schema in described["components"]["schemas"].items()
    ]
    return _document(
        info["title"],
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>",
        "<p>For programs: <a href='/openapi.json'>/openapi.json</a></p>",
        *sections,
        "<h2>Bodies</h2>",
        *schemas,
    )


def _operation(method: str, path: str, operation: dict[str, Any], example: str) -> str:
    parameters = "".join(
        _row(f"<code>{escape(one['name'])}</code> in {one['in']}", escape(one["description"]))
        for one in operation.get("parameters", [])
    )
    answers = "".join(
        _row(f"<code>{status}</code>", f"{escape(answer['description'])}: {_links(answer)}")
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"
        f"{_scope(operation)}<pre>{escape(example)}</pre><table>{parameters}{answers}</table>"
    )


def _scope(operation: dict[str, Any]) -> str:
    scopes = [scope for one in operation.get("security", []) for given in one.values() for scope in given]
    return f"<p>Scope of the API key: <code>{escape(scopes[0])}</code></p>" if scopes else ""


def _row(left: str, right: str) -> str:
    return f"<tr><td>{left}</td><td>{right}</td></tr>"


def _links(answer: dict[str, Any]) -> str:
    [content] = answer["content"].values()
    references = [one["$ref"] for one in content["schema"].get("oneOf", [content["schema"]])]
    names = [reference.rpartition("/")[2] for reference in references]
    return " or ".join(f"<a href='#{name}'>{name}</a>" for name in names)
