"""Says which folders become packages; all else about the project stands in pyproject.toml.

`models/` lies at the top of the checkout, for people, and becomes `edge_cl/models/` in a wheel, for programs:
so `pip install` brings the backbone that ships along. pyproject.toml can name found packages or moved ones,
not both; that is all this file is for.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["edge_cl*", "host_trainer*"]), "edge_cl.models"],
    package_dir={"edge_cl.models": "models"},
    package_data={
        "edge_cl.models": ["*.tflite", "*.md"],
        "host_trainer.server.web": ["templates/*"],
    },
)
