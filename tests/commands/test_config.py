"""Settings: what is written is read, and what makes no sense is refused with its name."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_cl.config import (
    LEVELS,
    EngineSettings,
    Settings,
    SyncSettings,
    Teaching,
    default_state,
    parse_settings,
    read_settings,
    to_toml,
    write_settings,
)
from edge_cl.errors import ConfigError

NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | TEXTS


@given(
    st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, max_size=4), max_size=6),
    st.builds(Teaching, st.booleans(), st.booleans()),
    st.builds(EngineSettings, st.integers(1, 64), st.booleans(), TEXTS),
    st.builds(
        SyncSettings,
        st.sampled_from(LEVELS),
        st.integers(1, 1000),
        fall=st.floats(0, 1),
        classes=st.dictionaries(TEXTS, st.sampled_from(LEVELS), max_size=3),
    ),
)
def test_settings_read_back_equal(learner, teaching, engine, sync):
    settings = Settings(learner, teaching, engine, sync)
    assert parse_settings(to_toml(settings), "x") == settings


def test_a_folder_without_settings_has_none(tmp_path):
    assert read_settings(tmp_path / "nothing") is None
    write_settings(tmp_path / "new", Settings({"views": 2}))
    assert read_settings(tmp_path / "new") == Settings({"views": 2})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 2", "upgrade edge-cl"),
        ("[learner", "not TOML"),
        ("[lerner]\nviews = 1", "lerner"),
        ("[teaching]\nmiror = true", "miror"),
        ("[teaching]\nmirror = 1", "mirror"),
        ("[engine]\nthreads = 0", "threads"),
        ("[engine]\nthreads = true", "threads"),
        ("engine = 1", "EngineSettings"),
        ("[sync]\nlevel = 'all'", "statistics, features"),
        ("[sync.classes]\nmug = 'no'", "'no' is no level"),
        ("[sync]\nclasses = 1", "sync.classes"),
        ("[sync]\nminimum = 0", "minimum"),
        ("[sync]\ninterval_s = 1", "interval_s"),
        ("[installation]\ncrashes = 0", "crashes"),
        ("[installation]\nlatency_ms = -1.0", "latency_ms"),
        ("[installation]\nminutes = 'one'", "minutes"),
        ("sync = 1", "not a table"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_settings(text, "config.toml")


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/home/ann"}, "/x/edge-cl"),
        ({"XDG_STATE_HOME": "x", "HOME": "/home/ann"}, "/home/ann/.local/state/edge-cl"),
        ({"HOME": "/home/ann"}, "/home/ann/.local/state/edge-cl"),
    ],
)
def test_a_learner_lives_where_the_xdg_specification_says(environ, place):
    assert str(default_state(environ)) == place


@pytest.mark.parametrize(
    "engine", [{"threads": 3}, {"isolate": True, "delegate": "edgetpu:usb"}, {"threads": None}]
)
def test_an_option_overrides_a_setting_and_none_does_not(engine):
    changed = Settings(engine=EngineSettings(2)).with_engine(**engine)
    assert changed.engine.threads == (engine.get("threads") or 2)
    assert changed.engine.delegate == engine.get("delegate", "")
