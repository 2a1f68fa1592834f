"""What Alembic runs: with the connection that `storage.migrate` hands over, inside its transaction."""

from alembic import context

from storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter columns; Alembic then copies the table
    transactional_ddl=False,  # the transaction is the caller's, so that all steps stand or none
)
context.run_migrations()
