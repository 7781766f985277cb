"""Looks at kept pictures again with a new backbone, and keeps what it sees beside the features in use."""

from edge_cl.device.agent import Agent
from edge_cl.device.installation.candidate import taught_here
from edge_cl.errors import ImageError, StoreDamagedError
from edge_cl.memory.store import COMMIT_ROWS
from edge_cl.vision.backbone import Backbone
from edge_cl.vision.frames import decode_image
from edge_cl.vision.preprocess import views


def see_again(agent: Agent, backbone: Backbone, mirror: bool) -> int:
    """Embed the kept picture of every sample in memory that was not seen yet, and return how many were.

    What was begun goes on: features are committed COMMIT_ROWS samples at a time.

    Raises:
        StoreError: the storage refuses; what was committed stays.
        EngineError: the engine failed.
    """
    store = agent.store
    if store.other_space not in (None, backbone.space):
        store.drop_other()  # of a try that was given up half way: nothing is to be returned to in it
    store.add_space(backbone.space)
    seen, count_of = store.other_samples(), {info.sample: info.views for info in store.samples()}
    batch, total = {}, 0
    for sample in taught_here(agent.learner):
        if sample in seen or sample not in count_of:
            continue
        try:
            picture = store.jpeg(sample)
            image = None if picture is None else decode_image(picture, f"sample {sample}")
        except (StoreDamagedError, ImageError):
            continue  # of no use any more: exemplars stand in
        if image is None:
            continue
        pixels = views(image, count_of[sample], backbone.input_size, backbone.policy, mirror)
        batch[sample] = backbone.embed_many(pixels)
        total += 1
        if len(batch) >= COMMIT_ROWS:
            store.add_features(batch)
            batch = {}
    if batch:
        store.add_features(batch)
    return total
