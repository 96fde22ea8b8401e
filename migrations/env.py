"""Run by Alembic. Precedent hands over its own connection, in a transaction; a developer gives `alembic -x url=`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from retrieval.schema import VERSION_TABLE, metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,  # SQLite's DDL is transactional too, once BEGIN is ours
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.connect() as own:
        run(own)
        own.commit()
