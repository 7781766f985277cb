"""The peers that the edge learner is held against, each as its authors describe it, under one interface."""

from edge_cl.learning.peers.closed_form import Imprinting, Ridge, StreamingLda
from edge_cl.learning.peers.descent import Replay, Softmax
from edge_cl.learning.peers.joint import Joint
from edge_cl.learning.peers.peer import Peer, PeerConfig

PEERS: dict[str, type[Peer]] = {
    "ncm": Imprinting,
    "slda": StreamingLda,
    "ridge": Ridge,
    "softmax": Softmax,
    "replay": Replay,
    "joint": Joint,
}

__all__ = ["PEERS", "Imprinting", "Joint", "Peer", "PeerConfig", "Replay", "Ridge", "Softmax", "StreamingLda"]
