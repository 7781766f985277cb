"""Run by Alembic: works on the connection that `database` has open, in its transaction."""

from alembic import context

from host_trainer.server.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    # SQLite changes a column only by copying its table.
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)
context.run_migrations()
