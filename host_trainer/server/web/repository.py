"""Serves the signed repository as files; what a name may be is written down, so none is another path."""

import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from host_trainer.release.folder import METADATA, TARGETS
from host_trainer.server.refusal import RefusedError

ROLE = r"[a-z0-9][a-z0-9_-]{0,79}"
PATHS = re.compile(
    rf"(?P<metadata>{METADATA}/(timestamp|[1-9][0-9]{{0,15}}\.{ROLE})\.json)"
    rf"|{TARGETS}/{ROLE}/(canary|beta|stable)/(?P<sha256>[0-9a-f]{{64}})\.[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}",
    re.ASCII,
)
STAMP = f"{METADATA}/timestamp.json"
CHANGING, FIXED = "no-cache", "public, max-age=31536000, immutable"
NOT_MODIFIED = 304


def file_response(root: Path, path: str, request: Request) -> Response:
    """Return the answer to a request for a file; of ranges, one is served, of several the whole file.

    Args:
        root: the folder `repository`.
        path: below it, as decoded.
        request: for its headers.

    Raises:
        RefusedError: there is no such file.
    """
    named = PATHS.fullmatch(path)
    file = root / path if named else root
    if named is None or not file.is_file():
        raise RefusedError("malformed", "there is no such file in the repository", status=404)
    headers = {
        "cache-control": CHANGING if path == STAMP else FIXED,
        "x-content-type-options": "nosniff",
    }
    if named["sha256"]:
        headers["etag"] = f'"{named["sha256"]}"'
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=NOT_MODIFIED, headers=headers)
    if "," in request.headers.get("range", ""):
        request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
    media_type = "application/json" if named["metadata"] else "application/octet-stream"
    return FileResponse(file, media_type=media_type, headers=headers)
