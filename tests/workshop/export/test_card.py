"""The model card: all the facts, in Markdown that reads well whatever they hold."""

from host_trainer.export.card import Card, to_markdown

CARD = Card(
    name="mobilenetv2:0.35/96",
    target="litert",
    quantise="ptq",
    origin={
        "teacher": "extractor.tflite",
        "recipe": {"steps": 100, "augment": ["flip", "crop"]},
        "empty": None,
    },
    data="photos, 1500 to learn from",
    command="host-trainer export m --target litert",
    files={"backbone.tflite": ("ab" * 32, 586040), "backbone.json": ("cd" * 32, 400)},
    figures={"latency": "0.12 ms", "a|b": "1 < 2"},
    notes=("made on one machine",),
)


def test_every_fact_stands_in_the_card() -> None:
    text = to_markdown(CARD)
    facts = (
        "mobilenetv2:0.35/96",
        "extractor.tflite",
        "steps: 100",
        "flip, crop",
        "0.12 ms",
        "586040",
        "ab" * 32,
    )
    assert all(fact in text for fact in facts)
    assert "    host-trainer export m --target litert" in text
    assert "- made on one machine" in text
    assert "empty" not in text


def test_equal_facts_give_equal_cards() -> None:
    turned = CARD._replace(files=dict(reversed(CARD.files.items())))
    assert to_markdown(turned) == to_markdown(CARD)


def test_what_would_break_a_table_is_kept_from_it() -> None:
    text = to_markdown(CARD._replace(notes=("two\nlines | and a bar",)))
    assert "| a\\|b | 1 &lt; 2 |" in text
    assert "- two lines \\| and a bar" in text
