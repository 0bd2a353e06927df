"""One question to a server, and what its answer means."""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib import request
from urllib.error import HTTPError, URLError

from .settings import HttpConfig

_CHUNK = 1 << 18
_RANGE_REFUSED = 416
_PASSING = {408, 425, 429}
_ABSENT = {404, 410}


class NotHereError(Exception):
    """This address will not give the archive, however often it is asked."""


class AbsentError(NotHereError):
    """The server knows of no such file."""


class PassingError(Exception):
    """A fault that another try may not meet. `wait_s`: the pause that the server asked for, 0 if none."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class SpoiltError(PassingError):
    """What was fetched before does not belong to what the server has now: the next try must begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer: its body are the archive's bytes from `start` on.

    `size` is that of the whole archive in bytes, None if the server does not say; `validator` is the text that names
    this very version of the file (a strong ETag, else the date of its last change), "" if there is none.
    """

    start: int
    size: int | None
    validator: str
    response: HTTPResponse


@contextmanager
def asked(
    url: str, settings: HttpConfig, *, start: int = 0, validator: str = "", head: bool = False
) -> Iterator[Answer]:
    """The server's answer to a request for everything from byte `start` on, or (`head`) for the headers alone.

    A server that has another version than `validator` says, or that serves no ranges, answers from byte 0.

    Raises:
        NotHereError, PassingError: there is no such answer.
    """
    headers = {"User-Agent": "neuralrecon", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": validator} if validator else {}
    question = request.Request(url, headers=headers, method="HEAD" if head else "GET")
    with _faults():
        try:
            response = _opener().open(question, timeout=settings.stall_s)
        except HTTPError as error:
            with error:
                raise _refusal(error.code, error.headers.get("Retry-After", "")) from None
        with response:
            yield _read_headers(response, start, validator)


@contextmanager
def _faults() -> Iterator[None]:
    """All that can go wrong on the way, as PassingError."""
    try:
        yield
    except TimeoutError:
        raise PassingError("the server went silent") from None
    except URLError as error:
        raise PassingError(f"no connection: {error.reason}") from None
    except http.client.IncompleteRead:
        raise PassingError("the connection was cut") from None
    except http.client.HTTPException as error:
        raise PassingError(f"no proper answer: {type(error).__name__} {error}".strip()) from None
    except (ConnectionError, ssl.SSLError) as error:
        raise PassingError(f"the connection was cut: {error.strerror or error}") from None


def _opener() -> request.OpenerDirector:
    """For http and https only: a redirect cannot lead to a local file or to ftp."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _refusal(status: int, retry_after: str) -> Exception:
    text = f"status {status} {http.client.responses.get(status, '')}".strip()
    if status == _RANGE_REFUSED:
        return SpoiltError(text)
    if status >= 500 or status in _PASSING:
        return PassingError(text, float(_number(retry_after) or 0))
    return AbsentError(text) if status in _ABSENT else NotHereError(text)


def _read_headers(response: HTTPResponse, start: int, validator: str) -> Answer:
    found = _validator(response.headers)
    if response.status == http.client.OK:
        return Answer(start=0, size=_number(response.headers.get("Content-Length")), validator=found, response=response)
    if response.status != http.client.PARTIAL_CONTENT:
        raise NotHereError(f"status {response.status}, want 200 or 206")
    text = response.headers.get("Content-Range", "")
    matched = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", text.strip())
    if not start or matched is None or int(matched[1]) != start:
        raise SpoiltError(f"asked for bytes {start} and on, the server sent '{text}'")
    if validator and found and found != validator:
        raise SpoiltError("the file on the server has changed since the first half was fetched")
    return Answer(start=start, size=_number(matched[2]), validator=found or validator, response=response)


def _validator(headers: http.client.HTTPMessage) -> str:
    """A weak ETag (W/"…") may stand for files that differ, so it does not count."""
    etag = headers.get("ETag", "").strip()
    return etag if etag.startswith('"') else headers.get("Last-Modified", "").strip()


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def body(answer: Answer, settings: HttpConfig) -> Iterator[bytes]:
    """The bytes of an answer as they come, until it ends or the connection does; to be read where it was asked for.

    Raises:
        PassingError: nothing came for `stall_s`, or less than `least_kb_per_second` over that time.
    """
    since, n_bytes = time.monotonic(), 0
    while chunk := answer.response.read1(_CHUNK):
        yield chunk
        n_bytes += len(chunk)
        seconds = time.monotonic() - since
        if seconds > settings.stall_s:
            if n_bytes < settings.least_kb_per_second * 1e3 * seconds:
                raise PassingError(f"the server sent only {n_bytes} bytes in {seconds:.0f} s")
            since, n_bytes = time.monotonic(), 0
