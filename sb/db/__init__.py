"""The database: named queries, transactions in worker threads, migrations."""
