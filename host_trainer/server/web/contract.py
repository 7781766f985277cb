"""What `/openapi.json` says of the routes: their forms, their answers, what they are for."""

from typing import Any

from edge_cl.wire import routes
from edge_cl.wire.enrolment import MAX_ROOT_BYTES, NONCE_BYTES, TOKEN_BYTES
from edge_cl.wire.fields import NAME
from edge_cl.wire.messages import LEVELS, REFUSALS
from edge_cl.wire.signing import KEY_BYTES, SCHEME

DESCRIPTION = (
    "The host of a fleet of edge-cl devices. Devices enrol with a one-time code, then speak in rounds of "
    "signed messages (edge_cl/wire); releases are files of a TUF repository."
)
NOT_SIGNED, SIGNED = (
    "Not signed.",
    f"Signed: header `Authorization`, scheme `{SCHEME}` (edge_cl/wire/signing.py).",
)


def _hex(count: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * count}}}$"}


ENROL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["device", "hardware", "nonce", "runtime", "token"],
    "properties": {
        "device": {"type": "string", "pattern": f"^({NAME})?$"},
        "hardware": {
            "type": "array",
            "maxItems": 8,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": f"^{NAME}$"},
        },
        "nonce": _hex(NONCE_BYTES),
        "runtime": {"type": "string", "pattern": r"^[0-9]{1,4}(\.[0-9]{1,6}){0,3}$"},
        "token": _hex(TOKEN_BYTES),
    },
}
ENROLLED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["channel", "device", "key", "level", "model", "root", "time"],
    "properties": {
        "channel": {"type": "string"},
        "device": {"type": "string"},
        "key": _hex(KEY_BYTES),
        "level": {"type": "string", "enum": list(LEVELS)},
        "model": {"type": "string"},
        "root": {"type": "string", "maxLength": 2 * MAX_ROOT_BYTES},
        "time": {"type": "integer"},
    },
}
REFUSAL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["reason", "wait", "words"],
    "properties": {
        "reason": {"type": "string", "enum": list(REFUSALS)},
        "wait": {"type": "integer", "minimum": 0},
        "words": {"type": "string", "maxLength": 200},
    },
}
MESSAGE_SCHEMA: dict[str, Any] = {"type": "string", "format": "binary"}
WHY = {
    400: "Not in the one form that is spoken here.",
    401: "Nobody of the fleet signed this.",
    403: "The device was revoked, or the code lets nobody in.",
    404: "There is no such file.",
    408: "The body came too slowly.",
    409: "Out of its place: a request that came before, another round, a wrong clock.",
    413: "Longer than may be.",
    415: "In a wrapping.",
    416: "No such range.",
    429: "Too much for now; `Retry-After` says when.",
    503: "The host has no time or no room; `Retry-After` says when.",
}


def _answers(
    form: str, schema: dict[str, Any], words: str, *statuses: int
) -> dict[int | str, dict[str, Any]]:
    refused = {"content": {form: {"schema": REFUSAL_SCHEMA if form == routes.JSON else MESSAGE_SCHEMA}}}
    return {
        200: {"description": words, "content": {form: {"schema": schema}}},
        **{status: {"description": WHY[status], **refused} for status in statuses},
    }


def _body(form: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {form: {"schema": schema}}}}


AUTHORIZATION: dict[str, Any] = {
    "name": "Authorization",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
}
ENROLMENT: dict[str, Any] = {
    "summary": "Let a device in",
    "description": f"{NOT_SIGNED} The token of a one-time code lets one device in; asked again with the same "
    "nonce, the answer is the same.",
    "openapi_extra": _body(routes.JSON, ENROL_SCHEMA),
    "responses": _answers(
        routes.JSON,
        ENROLLED_SCHEMA,
        "The device's name and key, and what it trusts.",
        *(400, 403, 408, 413, 415, 429, 503),
    ),
}
ROUND: dict[str, Any] = {
    "summary": "One message of a round",
    "description": f"{SIGNED} Greet, Chunk, Commit or Status in, and Welcome, Receipt, Offer or "
    "Acknowledgement out; each may be repeated.",
    "openapi_extra": {**_body(routes.MESSAGE, MESSAGE_SCHEMA), "parameters": [AUTHORIZATION]},
    "responses": _answers(
        routes.MESSAGE, MESSAGE_SCHEMA, "The answer.", *(400, 401, 403, 408, 409, 413, 415, 429, 503)
    ),
}
REGISTRY: dict[str, Any] = {
    "summary": "Edits of the label registry",
    "description": f"{SIGNED} Those later than the version asked for, as a Renaming.",
    "openapi_extra": {
        "parameters": [
            AUTHORIZATION,
            {
                "name": routes.SINCE,
                "in": "query",
                "required": True,
                "schema": {"type": "integer", "minimum": 0},
            },
        ]
    },
    "responses": _answers(routes.MESSAGE, MESSAGE_SCHEMA, "The edits.", *(400, 401, 403, 409, 503)),
}
REPOSITORY: dict[str, Any] = {
    "summary": "A file of the signed repository",
    "description": f"{NOT_SIGNED} The files are signed themselves (TUF). A range may be asked for.",
    "responses": {
        **_answers("application/octet-stream", MESSAGE_SCHEMA, "The file."),
        206: {"description": "A part of it."},
        304: {"description": "It is as it was."},
        **{
            status: {"description": WHY[status], "content": {routes.JSON: {"schema": REFUSAL_SCHEMA}}}
            for status in (400, 404)
        },
        416: {"description": WHY[416]},
    },
}
METRICS: dict[str, Any] = {
    "summary": "Counts for Prometheus",
    "responses": {
        200: {
            "description": "Sums over the fleet.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **{
            status: {"description": words, "content": {routes.JSON: {"schema": REFUSAL_SCHEMA}}}
            for status, words in ((403, "Not for those outside."), (503, WHY[503]))
        },
    },
}
PAGE: dict[str, Any] = {
    "summary": "The page of the fleet",
    "responses": {
        200: {"description": "For people.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **{
            status: {"description": words, "content": {routes.JSON: {"schema": REFUSAL_SCHEMA}}}
            for status, words in ((403, "Not for those outside."), (503, WHY[503]))
        },
    },
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the host can keep anything",
    "responses": _answers(routes.JSON, {"type": "object"}, "It can.", 503),
}
