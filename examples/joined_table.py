"""Executions joined with a table of one's own, by SQLAlchemy: what the pictures of each state cost.
The same code serves on PostgreSQL and on a SQLite file.

python joined_table.py [LOCATION]
"""

import sys

import sqlalchemy as sa
from storebridge_sqlalchemy import engine_of, metadata_of

from storebridge import Execution, ExecutionStore, open_database


def main(location: str = "sqlite+pysqlite:executions.db") -> None:
    """Run three executions, note what each one cost, and ask for the sums."""
    with open_database(location) as database:
        executions = ExecutionStore(database)
        metadata, engine = metadata_of(database), engine_of(database)
        execution = sa.Table("execution", metadata)
        cost = sa.Table(
            "picture_cost",
            metadata,
            sa.Column("execution_id", sa.Text, primary_key=True),
            sa.Column("cents", sa.BigInteger, nullable=False),
        )
        cost.create(engine, checkfirst=True)

        made = [executions.create(Execution(job_id="pictures")) for _ in range(3)]
        executions.set_state(made[0].id, "Cancelled")
        with engine.begin() as connection:
            rows = [{"execution_id": one.id, "cents": 7} for one in made]
            connection.execute(cost.insert(), rows)

        sums = (
            sa.select(execution.c.state, sa.func.sum(cost.c.cents))
            .join(cost, cost.c.execution_id == execution.c.id)
            .group_by(execution.c.state)
            .order_by(execution.c.state)
        )
        with engine.connect() as connection:
            for state, cents in connection.execute(sums):
                print(f"{state}: {cents} cents")
        engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
