"""The page's two answers: a form, and what a model says of the clip that was sent with it."""

import asyncio
import ipaddress
import secrets
import socket
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from markupsafe import escape
from starlette.applications import Starlette
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from experiments.demo.uploads import StoredClip, Upload
from experiments.prediction.page import NO_LIE_DETECTOR, page
from experiments.report import html
from mer import InputError
from mer.prediction import Prediction
from mer.preprocessing.video import Clip, open_clip
from mer.trained import Model

PACKAGE = "experiments.demo"
MOST_FILES = 1000
FORM_BYTES = 1 << 20  # beside the files: their names, and the model's
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with `no-referrer` the form's origin would be withheld, too
    "X-Content-Type-Options": "nosniff",
}
ANOTHER = '<p class="kicker"><a href="/">Another clip</a></p>'


class Demo:
    """What is shown, and by which models.

    Args:
        models: By name; the first one is chosen unless another is asked for.
        largest: Bytes of an upload.
    """

    def __init__(self, models: Mapping[str, Model], largest: int):
        self.models, self.largest = models, largest
        # One after another and in one thread: MediaPipe's graphs and torch's number of threads belong to nobody else.
        self.executor = ThreadPoolExecutor(1, "prediction")

    async def form(self, request: Request) -> Response:
        """The start page."""
        return self.start()

    async def predict(self, request: Request) -> Response:
        """The page of the clip that was uploaded; the server answers others meanwhile."""
        limited = Request(request.scope, self._limited(request.receive))
        async with limited.form(max_files=MOST_FILES, max_fields=8) as form:
            sent = [file for file in form.getlist("files") if isinstance(file, UploadFile) and file.filename]
            model = self.models.get(str(form.get("model", next(iter(self.models)))))
            if model is None:
                raise InputError(f"there is no such model; this page has {', '.join(self.models)}")
            files = [Upload(file.filename or "", file.file) for file in sent]
            text = await asyncio.get_running_loop().run_in_executor(self.executor, show, model, files)
        return _response(text)

    def _limited(self, receive: Receive) -> Receive:
        """A request that ends with an error where it has too many bytes."""
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.largest + FORM_BYTES:
                raise HTTPException(413, f"these files have more than {self.largest // 10**6} MB; cut the video")
            return message

        return counted

    def start(self, message: str = "", status: int = 200) -> Response:
        """The form, with what was wrong with the last upload."""
        nonce = secrets.token_urlsafe()
        content = {"models": list(self.models), "largest": self.largest, "caution": NO_LIE_DETECTOR}
        text = html.render("demo.html", PACKAGE, **content, message=message, status=status, nonce=nonce)
        return _response(text, status, nonce)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """The form, with what an exception says."""
        if isinstance(error, HTTPException):
            return self.start(error.detail, error.status_code)
        if isinstance(error, InputError):
            return self.start(str(error), 400)
        return self.start("The server failed; its terminal says why. It goes on with other clips.", 500)


def show(model: Model, files: Sequence[Upload]) -> str:
    """The page of a clip, which is on the disk for as long as this takes.

    Raises:
        InputError: If the files are no clip with one face.
    """
    with tempfile.TemporaryDirectory(prefix="mer-demo-") as folder:
        clip = StoredClip(files, Path(folder))
        try:
            prediction, note = _strongest(model, open_clip(clip.path))
        except InputError as error:
            raise InputError(clip.in_words(str(error))) from None
        text = page(replace(prediction, clip=clip.in_words(prediction.clip)), model.name)
    top = f'<header class="top">\n{ANOTHER}' + (f"\n<p>{escape(note)}</p>" if note else "")
    return text.replace('<header class="top">', top, 1)


def _strongest(model: Model, clip: Clip) -> tuple[Prediction, str]:
    """What a model says of a clip; of a long one of the strongest micro-expression in it, with a list of the others.

    Raises:
        InputError: If the clip cannot be used, or none is spotted in it.
    """
    if not clip.is_long():
        return model.predict(clip), ""
    spotted, predictions, left_out = model.predict_long(clip)
    if left_out and not predictions:
        raise left_out[0]
    if not predictions:
        raise InputError(
            f"{clip.name}: no micro-expression is spotted in it, that is no motion over {spotted.threshold:.2f} px of "
            "a face of 128 px that rises and falls within half a second"
        )
    strengths = [interval.strength for interval in spotted.intervals]
    all_of_them = "; ".join(f"frames {p.onset} to {p.offset}: {p.label}" for p in predictions)
    note = f"Spotted in this video: {all_of_them}. The strongest is shown."
    note += f" {len(left_out)} more could not be classified." if left_out else ""
    return predictions[strengths.index(max(strengths))], note


class SamePage:
    """Lets through what was sent to this server by name and, if it sends something, from this server's page.

    Another site could else have a reader's browser use this page, if need be under a name of its own that it points to
    this machine. A number cannot be pointed elsewhere; so Starlette's ``TrustedHostMiddleware``, which would have to
    know all numbers of this machine, is not used.

    Args:
        app: What is guarded.
        host: As the server was told to listen on.
    """

    def __init__(self, app: ASGIApp, host: str):
        own = socket.gethostname().lower()
        self.app, self.names = app, {"localhost", host.lower(), own, f"{own}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin", "")
            refused = ""
            if not self._is_own(host):
                refused = "This server is not known by that name."
            elif scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
                refused = "This was not sent from the server's own page."
            if refused:
                return await PlainTextResponse(refused, 403)(scope, receive, send)
        await self.app(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _response(text: str, status: int = 200, nonce: str = "") -> Response:
    """A page that loads nothing and runs no script but the one with this nonce."""
    policy = [
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", "form-action 'self'", "base-uri 'none'",
        "frame-ancestors 'none'", *([f"script-src 'nonce-{nonce}'"] if nonce else []),
    ]  # fmt: skip
    headers = {**HEADERS, "Content-Security-Policy": "; ".join(policy)}
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status, headers)


async def _nobody(request: Request, error: Exception) -> Response:
    """Whoever sent this is gone."""
    return Response(status_code=400)


def application(models: Mapping[str, Model], *, host: str, largest: int) -> Starlette:
    """The page as an ASGI application.

    Args:
        models: By name.
        host: As the server was told to listen on.
        largest: Bytes of an upload.
    """
    demo = Demo(models, largest)
    return Starlette(
        routes=[Route("/", demo.form), Route("/", demo.predict, methods=["POST"])],
        middleware=[Middleware(SamePage, host=host)],
        exception_handlers={
            InputError: demo.refuse, HTTPException: demo.refuse, ClientDisconnect: _nobody, Exception: demo.refuse
        },
    )  # fmt: skip
