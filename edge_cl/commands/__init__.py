"""The commands of `edge-cl`, a module each: `add_parser`, `run(args) -> dict`, `show(result) -> str`."""
