"""Writes what a training tells into TensorBoard event files, where a person asked for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_cl.errors import EngineError


class Events:
    """Scalars by step; a no-op without a writer."""

    def __init__(self, writer: Any = None, metadata: Any = None) -> None:
        self._writer, self._metadata = writer, metadata

    def write(self, step: int, told: Mapping[str, float]) -> None:
        """Add the scalars of one step."""
        if self._writer is None:
            return
        import tensorflow as tf

        with self._writer.as_default():
            for name, value in told.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=self._metadata)


@contextmanager
def events(folder: Path | None) -> Iterator[Events]:
    """Yield an Events that writes into `folder`, or nowhere.

    Raises:
        EngineError: event files need TensorFlow, and it is not installed.
    """
    if folder is None:
        yield Events()
        return
    try:
        import tensorflow as tf
    except ImportError as error:
        raise EngineError(
            "event files are written by TensorFlow: install it, or leave --tensorboard out"
        ) from error
    writer = tf.summary.create_file_writer(str(folder))
    try:
        yield Events(writer, _scalar_metadata())
    finally:
        writer.close()


def _scalar_metadata() -> Any:
    """Return what marks a value as a scalar; `tf.summary.scalar` would ask for TensorBoard itself."""
    import tensorflow as tf

    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    return tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=1)  # DATA_CLASS_SCALAR
