"""The history of the tables; `env.py` is run by Alembic, the revisions are in `versions`."""
