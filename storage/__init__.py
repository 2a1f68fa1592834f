"""The only SQL: models, migrations, configuration store, event store."""
