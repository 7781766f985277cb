"""Where a host answers, and what it says beside a body.

    POST /v1/enrolment          `enrolment.Enrol` in canonical JSON -> `Enrolled`; the token counts
    POST /v1/round              one encoded message of a round -> one encoded message; signed
    GET  /v1/registry?since=N   -> an encoded `Renaming`; signed
    GET  /repository/...        files of the TUF repository, with Range; not signed, they sign themselves

What is refused is answered by a `Refusal`, with the status below, in the form of the route: an encoded
message where messages are spoken, else canonical JSON of its fields.
"""

from collections.abc import Mapping
from types import MappingProxyType

ENROLMENT = "/v1/enrolment"
ROUND = "/v1/round"
REGISTRY = "/v1/registry"
SINCE = "since"
REPOSITORY = "/repository"
HEALTH = "/health"

JSON = "application/json"
MESSAGE = "application/vnd.edge-cl"  # one frame of `codec`

# Headers: of every answer, and of those refused as stale, what to go on from.
TIME = "edge-cl-time"  # the host's Unix seconds
COUNTER = "edge-cl-counter"  # the highest that the host has seen of this device
ROUND_NUMBER = "edge-cl-round"  # the round that the host is in with this device

STATUS: Mapping[str, int] = MappingProxyType(
    {
        "busy": 503,
        "quota": 429,
        "revoked": 403,
        "code": 403,
        "unknown-device": 401,  # also a signature of another key: who asks without the key learns no names
        "version": 400,
        "malformed": 400,
        "stale": 409,
        "too-large": 413,
    }
)
